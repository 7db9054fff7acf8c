"""Writes what this commit stores: a study with trials in every state, its data and teacher, and a picked folder.

    python tests/stored/write.py tests/stored/NAME

``NAME`` says which release's hand it is. Later code is tested on it (``tests/stored/test_stored.py``), so what lies
there is never written again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kdsearch.config.load import load_study
from kdsearch.data.phantom import simulate
from kdsearch.data.frame import Frame
from kdsearch.trials.record import students_of
from kdsearch.search.store import open_store

STUDY = """\
name: stored
seed: 3
data:
  sources: [{reader: folder, folder: $STORED_IMAGES}]
  size: 32
  split: {validation: 0.25}
teacher:
  architecture: linknet
  encoder: test_efficientnet
  encoder_depth: 3
  weights: none
  training: {epochs: 6, learning_rate: 5e-3}
student:
  width: {choice: [2, 3, 4, 6, 24]}
  depth: {int: [1, 2]}
  convolutions: 1
distillation:
  path: {choice: [none, logits, attention, regressor]}
  weight: {float: [0.2, 1.0]}
training:
  epochs: 5
  learning_rate: {choice: [3e-3, 1e-2, 1e36]}
search:
  sampler: random
  trials: 14
  limits: {params: 10k}
  pruning: {pruner: halving, warmup_epochs: 1, finished_trials: 1}
  workers: 1
  checkpoint_every_s: 0
"""
LEFT_OUT = (".kdsearch/data/digests.json", "picked/overlays.png", "picked/environment.txt")
"""Files that name this machine, or that are large and only for people."""


def write_images(folder: Path, *, count: int = 48, seed: int = 7) -> None:
    """Phantoms of 32×32 pixels, and their masks."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    small = Frame(height=32, width=32)
    for index in range(count):
        phantom = simulate(index, seed=seed)
        Image.fromarray(small.image(phantom.image)).save(folder / "images" / f"{index:02d}.png")
        Image.fromarray(small.mask(phantom.mask) * np.uint8(255)).save(folder / "masks" / f"{index:02d}.png")


def run_until_killed(place: Path, environment: dict[str, str], *, trials: int) -> None:
    """Runs the study, and kills it while that trial is trained and has a checkpoint."""
    command = [sys.executable, "-m", "kdsearch", "run", "study.yaml"]
    driver = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    running = None
    for line in driver.stdout:
        print(line, end="")
        if line.startswith("trial ") and ": started" in line:
            running = int(line.split()[1].rstrip(":"))
        if running is not None and running >= trials:
            checkpoint = place / ".kdsearch/studies/stored/checkpoints" / f"{running:05d}.checkpoint"
            until = time.monotonic() + 30
            while not checkpoint.exists() and time.monotonic() < until:
                time.sleep(0.001)
            driver.send_signal(signal.SIGKILL)
            break
    driver.wait()


def main() -> None:
    """Writes the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    target = parser.parse_args().folder.resolve()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_images(place / "images")
        (place / "study.yaml").write_text(STUDY, encoding="utf-8")
        os.environ["STORED_IMAGES"] = "images"
        environment = os.environ | {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
        run_until_killed(place, environment, trials=11)
        pick = [sys.executable, "-m", "kdsearch", "pick", "study.yaml", "--best", "--no-registry", "--out", "picked"]
        subprocess.run(pick, cwd=place, env=environment, check=True)
        time.sleep(2)  # the killed driver's worker ends
        home, study = place / ".kdsearch", load_study(place / "study.yaml")
        records = open_store(study, home, create=False).records()
        expected = {
            "outcomes": {record.number: record.outcome for record in records},
            "dice": {student.number: student.scores.dice for student in students_of(records)},
        }
        for file in (*place.rglob("*.lock"), *(place / name for name in LEFT_OUT)):
            file.unlink()
        target.mkdir(parents=True)
        (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
        for part in ("images", "picked", "study.yaml"):
            shutil.move(place / part, target / part)
        shutil.move(home, target / "home")


if __name__ == "__main__":
    main()
