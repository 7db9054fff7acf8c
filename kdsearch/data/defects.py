"""What is wrong with files, summed up for a screen."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from kdsearch.config.data import DataConfig
from kdsearch.data.entry import Defect
from kdsearch.errors import DataError

LISTED = 3
"""Files with one problem that are named one by one; more are summed up."""
KINDS = 12
"""Kinds of problems that are named; a screen has few lines."""


def refuse_defects(defects: Sequence[Defect], config: DataConfig) -> None:
    """Raises DataError that sums them up, unless the study leaves such images out."""
    if defects and config.on_defect == "stop":
        listed = "\n".join(f"  {line}" for line in summed_up(defects))
        raise DataError(
            f"{len(defects)} files cannot be used as they are:\n{listed}\n"
            "Fix them, or leave these images out: on_defect: skip in a study file's data section, --on-defect skip "
            "for kdsearch evaluate."
        )


def summed_up(defects: Sequence[Defect]) -> list[str]:
    """A line for each defect, or for all of one kind if there are many."""
    kinds: dict[str, list[Defect]] = defaultdict(list)
    for defect in defects:
        kinds[_kind(defect)].append(defect)
    lines: list[str] = []
    for alike in list(kinds.values())[:KINDS]:
        if len(alike) <= LISTED:
            lines += [str(defect) for defect in alike]
        else:
            lines.append(f"{len(alike)} files, such as {alike[0]}")
    rest = sum(map(len, list(kinds.values())[KINDS:]))
    return [*lines, f"and {rest} more files"] if rest else lines


def _kind(defect: Defect) -> str:
    """Equal for defects that differ in numbers and names."""
    return re.sub(r"\d+", "#", re.sub(r"\(.*?\)|'.*?'|as .*$", "", defect.problem))


def summed_up_again(lines: Sequence[str]) -> list[str]:
    """As ``summed_up``, from defects as they are kept in a cache, ``FILE: PROBLEM``."""
    parts = (line.partition(": ") for line in lines)
    return summed_up([Defect(path=Path(file), problem=problem) for file, _, problem in parts])
