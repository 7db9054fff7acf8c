"""What a reader says of one image before anything is decoded."""

from __future__ import annotations

import os
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
    folders: tuple[Path, ...] = ()
    """Those whose files are the images and masks."""
    known: tuple[Path, ...] = ()
    """Files in them that are left out on purpose, such as masks of other structures."""
    wanted: str = ""
    """What the reader looks for in them, for errors."""

    @property
    def files(self) -> list[Path]:
        """Images and masks that are to be read."""
        return [path for entry in self.entries for path in (entry.image, *entry.masks)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One file that cannot be used as it is."""

    path: Path
    problem: str
    hint: str = ""
    """More about it, which does not count in a fingerprint."""

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.problem}{self.hint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Files or images that were left out or changed, and that a user should know of."""

    what: str
    """Follows their number."""
    names: tuple[str, ...]
    quiet: bool = False
    """Whether they are counted only, such as hidden files of an operating system."""

    def __str__(self) -> str:
        return f"{len(self.names)} {self.what}"


def shown(path: Path | str) -> str:
    """The path as text that any terminal takes; bytes that are no UTF-8 are shown by their numbers."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Reader(Protocol):
    """Lists a published data set's folder; raises DataError where the layout is not there."""

    def __call__(self, folder: Path) -> Listing: ...
