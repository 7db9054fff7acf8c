"""A plain folder: ``images/`` and ``masks/``, and a table for groups and labels where there is one."""

from __future__ import annotations

from pathlib import Path

from kdsearch.data.entry import Listing
from kdsearch.data.readers.layout import list_images, pair_by_stem, require_folder, stems
from kdsearch.data.readers.tables import NAMED, normal, read_table, rows_by_stem
from kdsearch.errors import DataError

WHERE = "put images into images/ and masks of the same names into masks/"


def read_folder(folder: Path, *, csv: str | None = None, masks: bool = True) -> Listing:
    """Lists ``images/`` and ``masks/``; the table ``csv`` has a column ``image`` and any of ``group``, ``label``.

    Without ``masks`` nobody looks for those.
    """
    root = require_folder(folder, ("images", "masks") if masks else ("images",), where=WHERE)
    return _with_table(root, root / "images", root / "masks" if masks else None, csv=csv)


def read_images(folder: Path, *, csv: str | None = None) -> Listing:
    """Lists the folder's own images, without masks; ``csv`` as of ``read_folder``."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; put images into it")
    return _with_table(folder, folder, None, csv=csv)


def _with_table(root: Path, images: Path, masks: Path | None, *, csv: str | None) -> Listing:
    table = read_table(root / csv, key="image") if csv else None
    rows = rows_by_stem(table, stems(images)) if table else {}
    known = rows if csv else None

    def label_of(stem: str) -> str | None:
        return rows.get(normal(stem), {}).get("label")

    def group_of(stem: str) -> str | None:
        return rows.get(normal(stem), {}).get("group")

    if masks is None:
        listing = list_images(images, label_of=label_of, group_of=group_of, known=known)
    else:
        listing = pair_by_stem(images, masks, label_of=label_of, group_of=group_of, known=known)
    there = {entry.id for entry in listing.entries} | {defect.path.stem for defect in listing.defects}
    strangers = set(rows) - {normal(stem) for stem in there}
    if strangers:
        raise DataError(
            f"{root / (csv or '')}: names images that are not there: {', '.join(sorted(strangers)[:NAMED])}"
        )
    return listing
