"""What a reader says of one image before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image of a source and the files that belong to it."""

    id: str
    """Unique within the source and the same on every machine."""
    image: Path
    masks: tuple[Path, ...]
    """The lesion is their union; empty where the image is known to hold no lesion."""
    label: str | None = None
    group: str | None = None
    """Patient, or None where nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All a reader found in a folder, and what it found wrong there."""

    entries: tuple[Entry, ...]
    defects: tuple[Defect, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One file that cannot be used as it is."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class Reader(Protocol):
    """Lists a published data set's folder; raises DataError where the layout is not there."""

    def __call__(self, folder: Path) -> Listing: ...
