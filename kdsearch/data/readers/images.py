"""A plain folder of images without masks."""

from __future__ import annotations

from pathlib import Path

from kdsearch.data.entry import Entry, Listing
from kdsearch.data.pixels import SUFFIXES
from kdsearch.errors import DataError

WHERE = "put images into the folder"


def read_images(folder: Path) -> Listing:
    """Lists the folder's images, by their file names; raises DataError where there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; {WHERE}")
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise DataError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}); {WHERE}")
    return Listing(entries=tuple(Entry(id=path.name, image=path, masks=()) for path in files))
