"""Lets the user walk along the front with the arrow keys and pick a student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import readchar
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdsearch.config.space import dimensions
from kdsearch.config.study import StudyConfig
from kdsearch.files.home import overlays_path
from kdsearch.report.table import front_cells
from kdsearch.trials.record import Student

UP, DOWN = (readchar.key.UP, "k"), (readchar.key.DOWN, "j")
TAKE = (readchar.key.ENTER, "\n", "\r")
LEAVE = ("q", readchar.key.CTRL_C, *(readchar.key.ESC + key for key in ("q", readchar.key.ESC, readchar.key.CTRL_C)))
"""After Esc, with which the code of an arrow key starts too, readchar waits for another key."""
KEYS = Text("↑ ↓ move · Enter pick · q quit", style="dim")
FRAME = 6
"""Lines in addition to rows and details: keys, title, head, three rules."""
CURSOR = 5
"""Width of the cursor's column with its borders."""
FEWEST = 3
"""Students that are shown even in a very low terminal."""


def walk(
    members: Sequence[Student],
    *,
    study: StudyConfig,
    home: Path,
    console: Console,
    read: Callable[[], str] = readchar.readkey,
) -> int | None:
    """The trial on which Enter was pressed; None if the user quit. Members are smallest first."""
    place = len(members) // 2
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            details = _details(members[place], study, home)
            live.update(_page(members, place, details, console=console), refresh=True)
            try:
                pressed = read()
            except KeyboardInterrupt:
                return None
            if pressed in TAKE:
                return members[place].number
            if pressed in LEAVE:
                return None
            place += (pressed in DOWN) - (pressed in UP)
            place = min(max(place, 0), len(members) - 1)


def _page(members: Sequence[Student], place: int, details: Text, *, console: Console) -> Group:
    """As many students around ``place`` as fit the height of the terminal."""
    room = max(FEWEST, console.height - FRAME - len(console.render_lines(details)) - 1)
    start = min(max(0, place - room // 2), max(0, len(members) - room))
    shown = range(start, min(start + room, len(members)))
    counted = "" if len(shown) == len(members) else f", {start + 1} to {shown.stop} of {len(members)}"
    head, *rows = _narrowed(front_cells(members, brief=True), width=console.width)
    table = Table(title=f"Pareto front{counted}")
    for name in ("", *head):
        table.add_column(name, no_wrap=True)
    for index in shown:
        here = index == place
        table.add_row("▶" if here else "", *rows[index], style="bold reverse" if here else "")
    return Group(KEYS, table, details)


def _narrowed(cells: list[tuple[str, ...]], *, width: int) -> list[tuple[str, ...]]:
    """As many columns, from the first, as fit the width of the terminal next to the cursor's."""
    room, columns = width - CURSOR, 0
    for column in zip(*cells, strict=True):
        room -= max(len(cell) for cell in column) + 3
        if room < 0:
            break
        columns += 1
    return [row[:columns] for row in cells]


def _details(member: Student, study: StudyConfig, home: Path) -> Text:
    """The searched settings, one line per section, and where the overlays are."""
    searched = {name: value for name, value in member.recipe.settings().items() if name in dimensions(study)}
    lines = [
        f"{section}: " + ", ".join(f"{name.partition('.')[2]} {searched[name]}" for name in names)
        for section, names in groupby(sorted(searched, key=_section), key=_section)
    ]
    overlay = overlays_path(home, study.name, member.job)
    lines.append(f"overlays: {overlay if overlay.is_file() else 'written when the student is picked'}")
    return Text("\n".join(lines))


def _section(name: str) -> str:
    return name.partition(".")[0]
