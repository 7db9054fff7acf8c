"""BUSI (Al-Dhabyani et al. 2020): ``benign``, ``malignant``, ``normal``, one or several masks beside each image."""

from __future__ import annotations

import re
from pathlib import Path

from kdsearch.data.entry import Defect, Entry, Listing
from kdsearch.data.readers.layout import NOT_UTF_8, is_hidden, is_utf_8, require_folder

_IMAGE = re.compile(r"(.+ \(\d+\))\.png")
WHERE = "BUSI, 'Dataset of breast ultrasound images', doi 10.1016/j.dib.2019.104863; unpack Dataset_BUSI_with_GT"


def read_busi(folder: Path) -> Listing:
    """Lists BUSI; an image's masks are ``NAME_mask.png``, ``NAME_mask_1.png``, …, and the lesion is their union."""
    root = require_folder(folder, ("benign", "malignant", "normal"), inside="Dataset_BUSI_with_GT", where=WHERE)
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
            masks = tuple(sorted(image.parent.glob(f"{_literal(match[1])}_mask*.png")))
            if masks:
                entries.append(Entry(id=match[1], image=image, masks=masks, label=label))
            else:
                defects.append(Defect(path=image, problem=f"has no mask ({match[1]}_mask.png)"))
    folders = tuple(root / label for label in ("benign", "malignant", "normal"))
    wanted = "NAME (1).png and next to it NAME (1)_mask.png"
    return Listing(entries=tuple(entries), defects=tuple(defects), folders=folders, wanted=wanted)


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
