"""Walks the front with the arrow keys, one student at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import readchar
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdsearch.config.home import overlays_path
from kdsearch.config.quantity import format_quantity
from kdsearch.config.study import StudyConfig
from kdsearch.distill.record import Student

UP, DOWN = (readchar.key.UP, "k"), (readchar.key.DOWN, "j")
TAKE, LEAVE = (readchar.key.ENTER, "\n", "\r"), ("q", readchar.key.ESC, readchar.key.CTRL_C)


def walk(
    members: Sequence[Student],
    study: StudyConfig,
    home: Path,
    *,
    console: Console,
    read: Callable[[], str] = readchar.readkey,
) -> int | None:
    """The number of the student that Enter was pressed on; None where the person left. Members are smallest first."""
    place = len(members) // 2
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_page(members, place, study, home), refresh=True)
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


def _page(members: Sequence[Student], place: int, study: StudyConfig, home: Path) -> Group:
    table = Table("", "trial", "Dice %", "±", "params", "MACs", "path", title=f"Front of {study.name}")
    for index, member in enumerate(members):
        scores = member.scores
        table.add_row(
            "▶" if index == place else "",
            str(member.number),
            f"{100 * scores.dice:.1f}",
            f"{100 * scores.overlap.dice_std:.1f}",
            format_quantity(scores.params),
            format_quantity(scores.macs),
            member.recipe.path,
            style="bold reverse" if index == place else "",
        )
    return Group(table, _details(members[place], study, home), Text("↑ ↓ walk · Enter picks · q leaves", style="dim"))


def _details(member: Student, study: StudyConfig, home: Path) -> Text:
    settings = {key: value for key, value in member.recipe.settings().items() if "augmentation" not in key}
    lines = [f"  {key}: {value}" for key, value in settings.items()]
    overlay = overlays_path(home, study.name, member.number)
    lines.append(f"  overlays: {overlay if overlay.is_file() else 'made when it is picked'}")
    return Text("\n".join(lines))
