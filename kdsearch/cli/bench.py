"""``kdsearch bench``: latency on this machine. It runs on small devices, where only onnxruntime and numpy are there."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from kdsearch.export.timing import time_folder
from kdsearch.measure.latency import processor_name


def run_bench(options: argparse.Namespace) -> int:
    """Prints the latency of each ONNX file in the folder."""
    rows = time_folder(options.folder)
    if options.json:
        print(json.dumps({"processor": processor_name(), "latency": [asdict(row) for row in rows]}, indent=2))
        return 0
    print(f"Latency per image after warm-up, on {processor_name()}:")
    print(f"{'':42} {'threads':>7} {'median ms':>10} {'p95 ms':>8} {'runs':>6}")
    for row in rows:
        unsteady = "" if row.steady else "  unstable; is the machine busy?"
        print(f"{row.runtime:42} {row.threads:>7} {row.median_ms:>10.2f} {row.p95_ms:>8.2f} {row.runs:>6}{unsteady}")
    return 0
