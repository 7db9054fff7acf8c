"""Printing to whatever terminal, file or pipe there is."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich.console import Console

SPELLED = {"×": "x", "≤": "<=", "≥": ">=", "±": "+-", "–": "-", "…": "...", "→": "->", "★": "*", "·": "-"} | {
    "✓": "ok",
    "✗": "!!",
    "▶": ">",
}
"""What replaces kdsearch's own characters if the output's encoding lacks them, as in a cron job."""
HANDLER = "kdsearch.spelled"
LABEL_WIDTH = 12


def terminal(*, stderr: bool = False, soft_wrap: bool = False, highlight: bool = True) -> Console:
    """A console that prints text unchanged; Rich would read brackets as markup and colons as emoji."""
    from rich.console import Console  # slow to import, and help must be fast

    return Console(stderr=stderr, soft_wrap=soft_wrap, highlight=highlight, markup=False, emoji=False)


def say(console: Console, text: str, *, style: str = "") -> None:
    """Prints prose: wrapped between words in a terminal, unwrapped in a file or pipe."""
    console.print(text, soft_wrap=not console.is_terminal, highlight=False, style=style)


def say_labeled(console: Console, label: str, text: str) -> None:
    """Prints prose after a label, with a hanging indent in a terminal."""
    if not console.is_terminal:
        say(console, f"{label:<{LABEL_WIDTH}}{text}")
        return
    from rich.table import Table

    grid = Table.grid()
    grid.add_column(width=LABEL_WIDTH)
    grid.add_column()
    grid.add_row(label, text)
    console.print(grid, highlight=False)


def say_command(console: Console, text: str) -> None:
    """Prints a command to copy, which must not be wrapped."""
    console.print(text, soft_wrap=True, highlight=False)


def show_log(console: Console, *, quiet: bool = False, verbose: bool = False) -> None:
    """Prints log messages on the console, so that they do not break a live view: warnings, errors or everything."""
    from rich.logging import RichHandler

    logging.basicConfig(
        level=logging.WARNING,
        format="%(name)s: %(message)s" if verbose else "%(message)s",
        handlers=[RichHandler(console=console, show_path=False, show_time=verbose)],
    )
    logging.getLogger("kdsearch").setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.NOTSET)


def print_anything(streams: Iterable[object]) -> None:
    """Makes the streams spell out or escape characters that their encoding lacks, instead of failing."""
    codecs.register_error(HANDLER, _spelled)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError), "only printing uses this handler"
    characters = error.object[error.start : error.end]
    return "".join(SPELLED.get(one) or ascii(one)[1:-1] for one in characters), error.end


class _Outlet(io.FileIO):
    """A file descriptor for writing that becomes the null device when the reader of its pipe has exited."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Replaces ``sys.stdout`` and ``sys.stderr``, so that a command continues after the reader of its output exits.

    Streams that are not files, such as those of a test or a notebook, are not replaced.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)
        if not isinstance(stream, io.TextIOWrapper) or type(raw) is not io.FileIO:
            continue
        stream.flush()
        outlet = _Outlet(raw.fileno(), "w", closefd=False)
        replaced = io.TextIOWrapper(
            io.BufferedWriter(outlet) if buffer is not raw else outlet,  # python -u has no buffer
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, replaced)
