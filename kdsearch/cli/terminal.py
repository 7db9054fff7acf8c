"""What is printed: text as it is, on whatever terminal or pipe there is."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

SPELT = {"×": "x", "≤": "<=", "≥": ">=", "±": "+-", "–": "-", "…": "...", "→": "->", "✓": "ok", "✗": "!!", "▶": ">"}
"""Letters of kdsearch's own that an output of few letters, such as cron's, does not have."""
HANDLER = "kdsearch.spelt"


def terminal(*, stderr: bool = False, soft_wrap: bool = False, highlight: bool = True) -> Console:
    """A console that shows text as it is: Rich would take brackets in names and paths for markup, colons for emoji."""
    from rich.console import Console  # takes a moment to import, which help does without

    return Console(stderr=stderr, soft_wrap=soft_wrap, highlight=highlight, markup=False, emoji=False)


def print_anything(streams: Iterable[object]) -> None:
    """Lets the streams print letters that they have no code for, spelt out or as escapes, instead of an error."""
    codecs.register_error(HANDLER, _spelt)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def _spelt(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError), "it is for printing"
    letters = error.object[error.start : error.end]
    return "".join(SPELT.get(letter) or ascii(letter)[1:-1] for letter in letters), error.end
