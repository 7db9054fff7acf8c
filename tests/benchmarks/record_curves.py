"""Turns a finished study without pruning into a file of curves for replay.py.

kdsearch run tests/benchmarks/curves/phantom-curves.yaml
python tests/benchmarks/record_curves.py tests/benchmarks/curves/phantom-curves.yaml
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

from kdsearch.config.load import load_study
from kdsearch.files.home import home_folder
from kdsearch.search.store import open_store


def main() -> None:
    """Writes the study's curves next to its file, one row per trial."""
    path = Path(sys.argv[1])
    study = load_study(path)
    records = open_store(study, home_folder(os.environ), create=False).records()
    finished = [record for record in records if record.outcome == "finished" and record.scores]
    epochs = max(len(record.curve) for record in finished)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "params", "macs", *(f"dice_{epoch}" for epoch in range(1, epochs + 1))])
        for record in finished:
            assert record.scores is not None
            dice = [f"{report.dice:.4f}" for report in record.curve]
            writer.writerow([record.number, record.scores.params, record.scores.macs, *dice])


if __name__ == "__main__":
    main()
