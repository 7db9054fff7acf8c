"""Types and actions of command-line arguments."""

from __future__ import annotations

import argparse
import importlib
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for what add_subparsers returns
SHELLS = ("bash", "zsh", "fish")
MOST = 1_000_000
"""Trials, workers or repetitions."""
MOST_OF_A_NAME = 60
LAST_PORT = 65_535
MOST_DIGITS = 12
MOST_SHOWN = 40
"""Characters of an argument that a message repeats."""


class Renamed(argparse.Action):
    """An option of an earlier release; names what replaces it."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, now: str) -> None:
        super().__init__(option_strings, dest, nargs="?", help=argparse.SUPPRESS)
        self.now = now

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        _namespace: argparse.Namespace,
        _values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        """Exits with the message."""
        parser.error(f"{option_string} was renamed: write {self.now}")


class Parser(argparse.ArgumentParser):
    """Takes options only by their whole name, because a shortened one may get another meaning in a later release."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)


class PrintCompletion(argparse.Action):
    """Prints a script that completes commands, options and files in a shell."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        _namespace: argparse.Namespace,
        shell: str | Sequence[object] | None,
        _option: str | None = None,
    ) -> None:
        """Prints the script and exits."""
        import shtab  # only here, so that other commands start without it

        for action in parser._actions:  # noqa: SLF001 - argparse has no public names
            if isinstance(action, Commands):
                action.help = None  # shtab passes over what the help does not list
        print(shtab.complete(parser, shell=str(shell)))
        parser.exit()


def lazily(name: str) -> Callable[[argparse.Namespace], int]:
    """The command ``module.function``, which is imported when it is called."""
    module, _, function = name.partition(".")

    def run(options: argparse.Namespace) -> int:
        command = getattr(importlib.import_module(f"kdsearch.cli.{module}"), function)
        logging.getLogger("optuna").setLevel(logging.ERROR)  # after its import, which sets the level too
        return int(command(options))

    return run


def count(text: str) -> int:
    """A number of things, at least one."""
    number = _digits(text)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is not a whole number from 1 to {MOST:,}")
    return number


def port(text: str) -> int:
    """A TCP port."""
    number = _digits(text)
    if not 1 <= number <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is not a port; write a number from 1 to {LAST_PORT}")
    return number


def trial(text: str) -> int:
    """The number of a trial."""
    number = _digits(text)
    if not 0 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is not the number of a trial")
    return number


def _digits(text: str) -> int:
    """The number written with ASCII digits; -1 for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else -1


def _shortened(text: str) -> str:
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…")


def milliseconds(text: str) -> float:
    """A time such as ``5ms`` or ``0.8``."""
    try:
        value = float(text.removesuffix("ms"))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in milliseconds; write it as 5ms or 0.8")
    return value


def minutes(text: str) -> float:
    """A time such as ``30`` or ``2h``."""
    try:
        value = 60 * float(text.removesuffix("h")) if text.endswith("h") else float(text.removesuffix("m"))
    except ValueError:
        value = 0.0
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is not a time in minutes; write it as 30 or 2h")
    return value


def image_size(text: str) -> int:
    """Height and width of images that can be halved five times."""
    number = _digits(text)
    if not 32 <= number <= 1024 or number % 32:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is not a multiple of 32 from 32 to 1024")
    return number


def study_name(text: str) -> str:
    """A study's name."""
    from kdsearch.config.sources import NAMES  # imports pydantic

    return _matching(text, NAMES, "letters, digits, '.', '_' and '-'")


def class_names(text: str) -> tuple[str, ...]:
    """The names of what masks outline, separated by commas."""
    from kdsearch.config.data import CLASS_NAMES  # imports pydantic

    names = [name.strip() for name in text.split(",")]
    return tuple(_matching(name, CLASS_NAMES, "letters, digits, spaces, '.', '_' and '-'") for name in names)


def _matching(text: str, pattern: str, allowed: str) -> str:
    if not re.fullmatch(pattern, text) or len(text) > MOST_OF_A_NAME:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is not a name; use up to 60 {allowed}")
    return text


def quantity(text: str) -> int:
    """A number such as ``820k`` or ``50M``."""
    from kdsearch.config.quantity import parse_quantity  # imports pydantic
    from kdsearch.errors import KdsearchError

    try:
        number = parse_quantity(text)
    except KdsearchError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be above zero")
    return number


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number
