"""BrEaST (Pawłowska et al. 2024): RGBA images, ``_tumor`` and ``_other`` masks, a clinical spreadsheet."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from kdsearch.data.entry import Defect, Entry, Listing
from kdsearch.data.readers.layout import require_folder
from kdsearch.errors import DataError

IMAGES = "BrEaST-Lesions_USG-images_and_masks"
WHERE = (
    "BrEaST, 'A curated benchmark dataset for ultrasound based breast lesion analysis', doi 10.1038/s41597-024-02984-z"
)


def read_breast(folder: Path) -> Listing:
    """Lists BrEaST: the lesion is the ``_tumor`` mask, ``_other`` is background, normal cases have no mask."""
    root = require_folder(folder, (IMAGES,), where=WHERE)
    labels = _labels(root)
    entries: list[Entry] = []
    defects: list[Defect] = []
    for image in sorted((root / IMAGES).glob("case???.png")):
        label = labels.get(image.name)
        masks = tuple(sorted(image.parent.glob(f"{image.stem}_tumor*.png")))
        if not masks and label != "normal":
            defects.append(
                Defect(path=image, problem=f"has no mask ({image.stem}_tumor.png) and is not listed as normal")
            )
            continue
        entries.append(Entry(id=image.stem, image=image, masks=masks, label=label, group=image.stem))
    return Listing(
        entries=tuple(entries),
        defects=tuple(defects),
        folders=(root / IMAGES,),
        known=tuple((root / IMAGES).glob("case???_other*.png")),
        wanted="case001.png and next to it case001_tumor.png",
    )


def _labels(root: Path) -> dict[str, str]:
    """Classification by image file name, from the clinical spreadsheet."""
    sheets = sorted(root.glob("*.xlsx"))
    if not sheets:
        raise DataError(
            f"{root} does not hold the clinical spreadsheet (*.xlsx) with the classification; get the data: {WHERE}"
        )
    try:
        with contextlib.closing(load_workbook(sheets[0], read_only=True, data_only=True)) as book:
            rows = list(book.worksheets[0].iter_rows(values_only=True))
    except (OSError, InvalidFileException, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{sheets[0]}: cannot be read as a spreadsheet: {error}") from error
    header = [str(cell) for cell in rows[0]] if rows else []
    for column in ("Image_filename", "Classification"):
        if column not in header:
            raise DataError(f"{sheets[0]}: has no column {column!r}")
    name, kind = header.index("Image_filename"), header.index("Classification")
    return {str(row[name]): str(row[kind]) for row in rows[1:] if row[name]}
