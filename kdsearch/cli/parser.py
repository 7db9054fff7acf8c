"""What may be typed; nothing heavy is imported here, so that help answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdsearch import __version__


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each is carried out by ``kdsearch.cli.commands.NAME``."""
    parser = argparse.ArgumentParser(
        prog="kdsearch", description="From a folder of images and a teacher to a Pareto front of small students."
    )
    parser.add_argument("--version", action="version", version=f"kdsearch {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_study(commands, "check", "validate a study file without running it, and show its space")
    _add_front(commands)
    _add_pick(commands)
    _add_study(commands, "sync", "bring MLflow level with a study's storage")
    commands.add_parser("schema", help="print the JSON Schema of study files")
    commands.add_parser("doctor", help="say what was found on this machine, what is wrong and how to mend it")
    return parser


def _add_study(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("study", type=Path, metavar="STUDY", help="a study file (YAML)")
    return command


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = _add_study(commands, "run", "run a study, or go on with one that is half done")
    run.add_argument("--trials", type=_positive, metavar="N", help="trials in all, instead of the study file's number")
    run.add_argument(
        "--workers", type=_positive, metavar="N", help="worker processes, instead of the study file's number"
    )
    run.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="[NAME=]FOLDER",
        help="where a source's images lie, instead of the study file's folder",
    )
    run.add_argument("--profile", action="store_true", help="say at the end where the search's time went")


def _add_front(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    front = _add_study(commands, "front", "show the students that no other student beats")
    form = front.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--csv", action="store_true", help="as CSV")
    front.add_argument("--html", type=Path, metavar="FILE", help="write the interactive chart there")


def _add_pick(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pick = _add_study(commands, "pick", "write the best student within a budget to a folder")
    pick.add_argument("--params", type=_quantity, metavar="N", help="most parameters, such as 820k")
    pick.add_argument("--macs", type=_quantity, metavar="N", help="most multiply-adds for one image, such as 50M")
    pick.add_argument("--min-dice", type=_share, metavar="D", help="least Dice, from 0 to 1")
    pick.add_argument("--out", type=Path, metavar="FOLDER", help="where to put it; picked/STUDY-TRIAL unless given")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def _quantity(text: str) -> int:
    from kdsearch.config.quantity import parse_quantity
    from kdsearch.errors import KdsearchError

    try:
        quantity = parse_quantity(text)
    except KdsearchError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if quantity < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be above zero")
    return quantity


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return share
