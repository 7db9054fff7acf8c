"""Types and actions of command-line arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

MOST = 1_000_000
"""Trials, workers or repetitions."""
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
