"""UDIAT Dataset B (Yap et al. 2018): ``original/`` and ``GT/``, paired by file name."""

from __future__ import annotations

from pathlib import Path

from kdsearch.data.entry import Listing
from kdsearch.data.readers.layout import pair_by_stem, require_folder

WHERE = "UDIAT Dataset B is sent on request by its authors (Yap et al., doi 10.1109/JBHI.2017.2731873)"


def read_udiat(folder: Path) -> Listing:
    """Lists Dataset B; classes come from ``Benign.txt`` and ``Malignant.txt`` style lists only where they exist."""
    root = require_folder(folder, ("original", "GT"), where=WHERE)
    labels = {
        line.strip().zfill(6): label
        for label in ("benign", "malignant")
        for file in root.glob("*.txt")
        if file.stem.lower() == label
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    }
    return pair_by_stem(root / "original", root / "GT", label_of=lambda stem: labels.get(stem.zfill(6)))
