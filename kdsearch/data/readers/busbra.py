"""BUS-BRA (Gómez-Flores et al. 2024): ``Images/``, ``Masks/``, and ``bus_data.csv`` with the patient in ``Case``."""

from __future__ import annotations

from pathlib import Path

from kdsearch.data.entry import Listing
from kdsearch.data.readers.layout import pair_by_stem, require_folder
from kdsearch.data.readers.tables import read_table

WHERE = "BUS-BRA, doi 10.5281/zenodo.8231412"


def read_busbra(folder: Path) -> Listing:
    """Lists BUS-BRA; images of one patient (``Case``) stay together in a split."""
    root = require_folder(folder, ("Images", "Masks", "bus_data.csv"), inside="BUSBRA", where=WHERE)
    table = read_table(root / "bus_data.csv", key="ID", columns=("Case", "Pathology")).rows
    return pair_by_stem(
        root / "Images",
        root / "Masks",
        mask_stem=lambda stem: stem.replace("bus_", "mask_", 1),
        label_of=lambda stem: table.get(stem, {}).get("Pathology"),
        group_of=lambda stem: table.get(stem, {}).get("Case"),
        known=table,
    )
