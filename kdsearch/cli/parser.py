"""What may be typed; nothing heavy is imported here, so that help answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdsearch.version import __version__

MOST = 1_000_000
"""Trials, workers or repetitions that may be asked for."""
LAST_PORT = 65_535
MOST_DIGITS = 12
MOST_SHOWN = 40
"""Letters of a word in a message."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each is carried out by ``kdsearch.cli.commands.NAME``."""
    parser = argparse.ArgumentParser(
        prog="kdsearch", description="From a folder of images and a teacher to a Pareto front of small students."
    )
    parser.add_argument("--version", action="version", version=f"kdsearch {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    check = _add_study(commands, "check", "validate a study file without running it, and show its space")
    check.add_argument(
        "--places", action="store_true", help="also open the storage, MLflow and the place for checkpoints"
    )
    _add_audit(commands)
    _add_front(commands)
    _add_confirm(commands)
    _add_test(commands)
    _add_pick(commands)
    _add_report(commands)
    _add_ui(commands)
    _add_bench(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_data(_add_study(commands, "sync", "bring MLflow level with a study's storage"))
    schema = commands.add_parser("schema", help="print the JSON Schema of study files")
    schema.add_argument("--markdown", action="store_true", help="its settings as Markdown tables instead")
    commands.add_parser("doctor", help="say what was found on this machine, what is wrong and how to fix it")
    return parser


def _add_study(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("study", type=Path, metavar="STUDY", help="a study file (YAML)")
    return command


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = _add_study(commands, "run", "run a study, or resume one that is half done")
    run.add_argument("--trials", type=_positive, metavar="N", help="trials in all, instead of the study file's number")
    run.add_argument(
        "--workers", type=_positive, metavar="N", help="worker processes, instead of the study file's number"
    )
    _add_data(run)
    run.add_argument("--profile", action="store_true", help="say at the end where the search's time went")


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="[NAME=]FOLDER",
        help="where a source's images lie, instead of the study file's folder",
    )


def _add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    audit = _add_study(commands, "data", "show what a study's images are, and which of them to look at")
    audit.add_argument("--out", type=Path, metavar="FILE", help="where the page goes; STUDY-data.html unless given")
    _add_data(audit)


def _add_front(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    front = _add_study(commands, "front", "show the students that no other student beats")
    form = front.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--csv", action="store_true", help="as CSV")
    front.add_argument("--html", type=Path, metavar="FILE", help="write the interactive chart there")
    _add_data(front)


def _add_confirm(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    confirm = _add_study(commands, "confirm", "train the likely front again, over folds, beside undistilled twins")
    confirm.add_argument("--dry-run", action="store_true", help="show the plan and its cost; seal and train nothing")
    confirm.add_argument(
        "--repetitions", type=_positive, metavar="N", help="how often, instead of the study file's number; 3 for claims"
    )
    confirm.add_argument(
        "--workers", type=_positive, metavar="N", help="worker processes, instead of the study file's number"
    )
    confirm.add_argument("--new-plan", action="store_true", help="seal another plan beside the one that is sealed")
    confirm.add_argument("--json", action="store_true", help="the answers as JSON")
    _add_data(confirm)


def _add_test(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    test = _add_study(commands, "test", "score the locked test images, once, by a student trained on all others")
    test.add_argument("--trial", type=_number, metavar="N", required=True, help="whose recipe")
    test.add_argument("--dry-run", action="store_true", help="show the plan and its cost; open and train nothing")
    test.add_argument("--again", action="store_true", help="open the test images though they were opened; counted")
    test.add_argument(
        "--workers", type=_positive, metavar="N", help="worker processes, instead of the study file's number"
    )
    test.add_argument("--json", action="store_true", help="what the images say as JSON")
    _add_data(test)


def _add_pick(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pick = _add_study(commands, "pick", "choose a student and write it to a folder, ready to be shipped")
    budget = pick.add_argument_group("budget, all of it must hold")
    budget.add_argument("--params", type=_quantity, metavar="N", help="most parameters, such as 820k")
    budget.add_argument("--macs", type=_quantity, metavar="N", help="most multiply-adds for one image, such as 50M")
    budget.add_argument("--latency", type=_milliseconds, metavar="MS", help="most ms an image, ONNX on one thread")
    budget.add_argument("--file-size", type=_quantity, metavar="BYTES", help="largest ONNX file, such as 300k")
    budget.add_argument("--min-dice", type=_fraction, metavar="D", help="least Dice, from 0 to 1")
    budget.add_argument(
        "--min-specificity",
        type=_fraction,
        metavar="E",
        help="least share of images without a lesion left empty, 0 to 1",
    )
    rule = pick.add_argument_group("rule").add_mutually_exclusive_group()
    rule.add_argument("--best", action="store_true", help="the best Dice (unless another rule is named)")
    rule.add_argument("--smallest-within", type=_fraction, metavar="D", help="the smallest within D of the best Dice")
    rule.add_argument("--knee", action="store_true", help="where more parameters begin to buy little")
    rule.add_argument("--trial", type=_number, metavar="N", help="this one")
    pick.add_argument(
        "--refit", action="store_true", help="the weights that kdsearch test trained on all but the locked images"
    )
    pick.add_argument("--out", type=Path, metavar="FOLDER", help="where to put it; picked/STUDY-TRIAL unless given")
    pick.add_argument("--with-preprocessing", action="store_true", help="ONNX files that take raw pixels of any size")
    pick.add_argument(
        "--int8-bound",
        type=_fraction,
        default=0.01,
        metavar="D",
        help="most Dice the 8-bit file may lose unmarked; 0.01",
    )
    pick.add_argument("--no-registry", action="store_true", help="leave MLflow's model registry alone")
    pick.add_argument("--json", action="store_true", help="say what was picked as JSON, and ask nothing")
    _add_data(pick)


def _add_folder(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that kdsearch pick wrote")
    return command


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = _add_study(commands, "report", "write a study as one HTML file that opens with no network")
    report.add_argument("--out", type=Path, metavar="FILE", help="where to; STUDY-report.html unless given")
    form = report.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print its tables in Markdown instead")
    form.add_argument("--latex", action="store_true", help="print its tables for LaTeX (booktabs) instead")
    _add_data(report)


def _add_ui(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "serve MLflow's pages on a study's record, until Ctrl-C"
    ui = commands.add_parser("ui", help=text, description=text[0].upper() + text[1:] + ".")
    ui.add_argument("study", type=Path, nargs="?", metavar="STUDY", help="a study file; without it, the whole record")
    ui.add_argument("--open", action="store_true", help="open the front in a browser")
    ui.add_argument("--port", type=_port, metavar="N", help="5000, or a free one if that is taken")


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bench = _add_folder(commands, "bench", "measure a picked student's latency on this machine")
    bench.add_argument("--json", action="store_true", help="as JSON")


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    predict = _add_folder(commands, "predict", "mark the lesions in images with a picked student")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders or quoted patterns")
    predict.add_argument("--out", type=Path, required=True, metavar="DIR", help="where masks and overlays go")
    predict.add_argument("--probabilities", action="store_true", help="also as grey pictures of 16 bits")
    _add_runtime(predict)


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    evaluate = _add_folder(commands, "evaluate", "score a picked student on a data set")
    evaluate.add_argument("--data", required=True, metavar="READER=FOLDER", help="such as busi=data/busi, or phantom")
    evaluate.add_argument("--on-invalid", choices=("error", "skip"), default="error", help="what bad files lead to")
    evaluate.add_argument("--unseen", action="store_true", help="leave out images it was trained on or chosen by")
    evaluate.add_argument("--csv", type=Path, metavar="FILE", help="write a row an image there")
    _add_runtime(evaluate)


def _add_runtime(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--runtime", choices=("onnx", "int8", "torch"), default="onnx", help="which of the folder's models; onnx"
    )


def _positive(text: str) -> int:
    number = _digits(text)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is not a whole number from 1 to {MOST:,}")
    return number


def _port(text: str) -> int:
    number = _digits(text)
    if not 1 <= number <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is not a port; write a number from 1 to {LAST_PORT}")
    return number


def _number(text: str) -> int:
    number = _digits(text)
    if not 0 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is not a trial's number")
    return number


def _digits(text: str) -> int:
    """The number that the digits 0 to 9 write; -1 for anything else, and for more digits than are of use."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else -1


def _shortened(text: str) -> str:
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…")


def _milliseconds(text: str) -> float:
    try:
        value = float(text.removesuffix("ms"))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write it as 5ms or 0.8")
    return value


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


def _fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return fraction
