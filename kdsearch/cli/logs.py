"""Where warnings of the library go while a command shows how its work goes."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler


def show_warnings(console: Console) -> None:
    """Prints them on the console, so that they don't tear a live view apart."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False, show_time=False)],
    )
