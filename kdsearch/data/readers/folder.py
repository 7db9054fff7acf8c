"""A plain folder: ``images/`` and ``masks/``, and a table for groups and labels where there is one."""

from __future__ import annotations

from pathlib import Path

from kdsearch.data.entry import Listing
from kdsearch.data.readers.layout import pair_by_stem, read_table, require_folder
from kdsearch.errors import DataError

WHERE = "put images into images/ and masks of the same names into masks/"


def read_folder(folder: Path, *, csv: str | None = None) -> Listing:
    """Lists ``images/`` and ``masks/``; the table ``csv`` has a column ``image`` and any of ``group``, ``label``."""
    root = require_folder(folder, ("images", "masks"), where=WHERE)
    table = read_table(root / csv, key="image") if csv else {}
    rows = {Path(image).stem: row for image, row in table.items()}
    listing = pair_by_stem(
        root / "images",
        root / "masks",
        label_of=lambda stem: rows.get(stem, {}).get("label"),
        group_of=lambda stem: rows.get(stem, {}).get("group"),
        known=rows if csv else None,
    )
    strangers = set(rows) - {entry.id for entry in listing.entries} - {d.path.stem for d in listing.defects}
    if strangers:
        raise DataError(f"{root / (csv or '')}: names images that are not there: {', '.join(sorted(strangers)[:5])}")
    return listing
