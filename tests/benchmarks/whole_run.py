"""Memory of the main process and the workers, and seconds from ``kdsearch run`` to the first epoch.

    python tests/benchmarks/whole_run.py --data FOLDER_OF_BUSI

Prints a table of docs/results/speed.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from kdsearch.config.load import load_study
from kdsearch.search.store import open_store

STUDY = """
name: whole-run
data:
  sources: [{reader: busi, folder: $BUSI_FOLDER}]
  size: 128
teacher: {encoder: tf_efficientnet_lite0, training: {epochs: 1}}
student: {width: 8, depth: 3, convs_per_stage: 1, conv: standard}
distillation: {path: {choice: [hidden]}, loss: {choice: [kld]}, teacher_view: {choice: [VIEW]}}
training: {epochs: 2, learning_rate: {float: [1e-3, 1e-2]}}
search: {trials: TRIALS, workers: 2}
"""


def main() -> None:
    """Runs a study twice for each view of the teacher, cold and warm, and prints what was seen of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder of BUSI")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for view in ("weak", "same"):
            for trials, name in ((1, "cold"), (3, "warm")):
                (Path(place) / f"{view}.yaml").write_text(_study(view, trials), encoding="utf-8")
                _watch(Path(place), f"{view}.yaml", Path(options.data).resolve(), f"{name}, teacher_view {view}")


def _study(view: str, trials: int) -> str:
    return STUDY.replace("VIEW", view).replace("TRIALS", str(trials)).replace("whole-run", f"whole-run-{view}")


def _watch(place: Path, study: str, data: Path, name: str) -> None:
    """Follows one run: when the first training step began, and the largest resident sizes."""
    environment = os.environ | {"BUSI_FOLDER": str(data)}
    command = [sys.executable, "-m", "kdsearch", "run", study]
    started = datetime.datetime.now(datetime.UTC)
    largest: dict[str, int] = {}
    with subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            _measure(psutil.Process(process.pid), largest)
            time.sleep(0.1)
    records = open_store(load_study(place / study), place / ".kdsearch", create=False).records()
    # A trial's end less its training is when its first step began, or a little later.
    steps = [
        record.ended - datetime.timedelta(seconds=record.scores.train_seconds)
        for record in records
        if record.ended > started
    ]
    sizes = ", ".join(f"{who} {size / 1e6:.0f} MB" for who, size in sorted(largest.items()))
    print(f"{name}: first step after {(min(steps) - started).total_seconds():.1f} s; largest resident memory: {sizes}")


def _measure(driver: psutil.Process, largest: dict[str, int]) -> None:
    try:
        members = [
            ("driver", driver),
            *(("worker", child) for child in driver.children() if "spawn_main" in " ".join(child.cmdline())),
        ]
        for name, process in members:
            largest[name] = max(largest.get(name, 0), process.memory_info().rss)
    except psutil.Error:
        return


if __name__ == "__main__":
    main()
