"""Readers for published data sets."""

from __future__ import annotations

import contextlib
import glob
import re
import zipfile
from pathlib import Path

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from kdsearch.data.layout import NOT_UTF_8, Defect, Entry, Listing, is_hidden, is_utf_8, pair_by_stem, require_folder
from kdsearch.data.tables import read_table
from kdsearch.errors import DataError

_IMAGE = re.compile(r"(.+ \(\d+\))\.png")
BUSI_WHERE = "BUSI, 'Dataset of breast ultrasound images', doi 10.1016/j.dib.2019.104863; unpack Dataset_BUSI_with_GT"


def read_busi(folder: Path) -> Listing:
    """Lists BUSI. The lesion is the union of all masks: ``NAME_mask.png``, ``NAME_mask_1.png`` and so on."""
    root = require_folder(folder, ("benign", "malignant", "normal"), inside="Dataset_BUSI_with_GT", where=BUSI_WHERE)
    entries: list[Entry] = []
    defects: list[Defect] = []
    for label in ("benign", "malignant", "normal"):
        for image in sorted((root / label).glob("*.png")):
            match = _IMAGE.fullmatch(image.name)
            if match is None or is_hidden(image):
                continue
            if not is_utf_8(image.name):
                defects.append(Defect(path=image, problem=NOT_UTF_8))
                continue
            masks = tuple(sorted(image.parent.glob(f"{glob.escape(match[1])}_mask*.png")))
            if masks:
                entries.append(Entry(id=match[1], image=image, masks=masks, label=label))
            else:
                defects.append(Defect(path=image, problem=f"has no mask ({match[1]}_mask.png)"))
    folders = tuple(root / label for label in ("benign", "malignant", "normal"))
    wanted = "NAME (1).png and next to it NAME (1)_mask.png"
    return Listing(entries=tuple(entries), defects=tuple(defects), folders=folders, wanted=wanted)


BUSBRA_WHERE = "BUS-BRA, doi 10.5281/zenodo.8231412"


def read_busbra(folder: Path) -> Listing:
    """Lists BUS-BRA. Images of one patient (``Case``) are one group."""
    root = require_folder(folder, ("Images", "Masks", "bus_data.csv"), inside="BUSBRA", where=BUSBRA_WHERE)
    table = read_table(root / "bus_data.csv", key="ID", columns=("Case", "Pathology")).rows
    return pair_by_stem(
        root / "Images",
        root / "Masks",
        mask_stem=lambda stem: stem.replace("bus_", "mask_", 1),
        label_of=lambda stem: table.get(stem, {}).get("Pathology"),
        group_of=lambda stem: table.get(stem, {}).get("Case"),
        known=table,
    )


IMAGES = "BrEaST-Lesions_USG-images_and_masks"
BREAST_WHERE = (
    "BrEaST, 'A curated benchmark dataset for ultrasound based breast lesion analysis', doi 10.1038/s41597-024-02984-z"
)


def read_breast(folder: Path) -> Listing:
    """Lists BrEaST. The ``_tumor`` masks are the lesion; ``_other`` masks are ignored; normal cases have no mask."""
    root = require_folder(folder, (IMAGES,), where=BREAST_WHERE)
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
    """Maps image file names to the classification in the clinical spreadsheet."""
    sheets = sorted(root.glob("*.xlsx"))
    if not sheets:
        raise DataError(
            f"{root} has no clinical spreadsheet (*.xlsx) with the classification; get the data: {BREAST_WHERE}"
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


UDIAT_WHERE = "UDIAT Dataset B, on request from its authors (Yap et al., doi 10.1109/JBHI.2017.2731873)"


def read_udiat(folder: Path) -> Listing:
    """Lists Dataset B. Labels come from the lists ``Benign.txt`` and ``Malignant.txt``, if they exist."""
    root = require_folder(folder, ("original", "GT"), where=UDIAT_WHERE)
    labels = {
        line.strip().zfill(6): label
        for label in ("benign", "malignant")
        for file in root.glob("*.txt")
        if file.stem.lower() == label
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    }
    return pair_by_stem(root / "original", root / "GT", label_of=lambda stem: labels.get(stem.zfill(6)))
