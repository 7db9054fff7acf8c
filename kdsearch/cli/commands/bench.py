"""``kdsearch bench``: latency on this machine; needs onnxruntime and numpy alone."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from kdsearch.export.timing import time_folder
from kdsearch.measure.latency import processor_name


def run(options: argparse.Namespace) -> int:
    """Prints the latency of each ONNX file in the folder."""
    rows = time_folder(options.folder)
    if options.json:
        print(json.dumps({"processor": processor_name(), "latency": [asdict(row) for row in rows]}, indent=2))
        return 0
    print(f"One image, warmed up, on {processor_name()}:")
    print(f"{'':42} {'threads':>7} {'median ms':>10} {'95 % within':>12} {'runs':>6}")
    for row in rows:
        unsteady = "" if row.steady else "  did not settle; is the machine busy?"
        figures = f"{row.threads:>7} {row.median_ms:>10.2f} {row.p95_ms:>12.2f} {row.runs:>6}"
        print(f"{row.runtime:42} {figures}{unsteady}")
    return 0
