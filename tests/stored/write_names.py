"""Packs what the last commit before the settings were renamed stores, with every setting that was renamed later.

    git worktree add ../earlier COMMIT
    PYTHONPATH=../earlier python tests/stored/write_names.py tests/stored

Later code is tested on it (``tests/stored/test_names.py``), so it is never written again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TERMS = """\
name: stored
seed: 3
data:
  sources: [{reader: folder, folder: $STORED_IMAGES}]
  size: 32
  split: {validation: 0.25}
  on_defect: skip
  train_without_lesion: true
teacher:
  architecture: linknet
  encoder: test_efficientnet
  encoder_depth: 3
  weights: none
  ensemble: 2
  members: seeds
  flip: true
  training: {epochs: 2, learning_rate: 5e-3, averaged_epochs: 1.5, encoder_rate: 0.5}
student:
  width: {choice: [3, 4, 6]}
  depth: 2
  convolutions: {choice: [1, 2]}
  convolution: {choice: [standard, separable]}
distillation:
  - {on: logits, loss: mse, weight: {choice: [0.5, 1.0]}}
  - {on: attention, loss: mse}
training: {epochs: 8, learning_rate: 2e-2, averaged_epochs: {choice: [0.5, 1.0]}}
search:
  sampler: tpe
  trials: 6
  startup_trials: 3
  objectives: [dice, params, empty_share]
  limits: {params: 10k}
  start: inherit
  inherited_epochs: 0.5
  vary_seed: true
  deterministic: true
  batch: 2
  heartbeat_timeout: 20
  workers: 1
  checkpoints: checkpoints
confirm: {members: 2, folds: 2, delta: 0.05}
"""
ONE_TERM = """\
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
  ensemble: 2
  members: folds
  training: {epochs: 2, learning_rate: 5e-3}
student: {width: {choice: [2, 3]}, depth: 1, convolutions: 1}
distillation: {path: {choice: [none, logits]}, loss: usual, weight: 0.5, balance: shared}
training: {epochs: 2, learning_rate: {float: [1e-3, 1e-1], log: true}}
search: {sampler: random, trials: 8, start: cold, vary_seed: false, batch: 8, workers: 1}
repeats: 1
score_test: false
references: [{label: U-Net, dice: 0.8, params: 7.8M}]
confirm: {members: 2, folds: 2}
"""
STUDIES = {
    "names-1": (
        TERMS,
        (
            ["run"],
            ["confirm"],
            ["test", "--trial", "BEST"],
            ["pick", "--trial", "BEST", "--no-registry", "--out", "picked"],
        ),
    ),
    "names-2": (ONE_TERM, (["run"], ["confirm"], ["pick", "--best", "--no-registry", "--out", "picked"])),
}
"""Each study file, and the commands that are run on it; BEST is the trial with the best Dice on the front."""
LEFT_OUT = ("environment.txt", "digests.json", "model.int8.onnx", "images.npy", "masks.npy")
"""Of this machine, or large."""
ZEROED = {"teacher.safetensors": 8, "logits.npy": 10}
"""Files that keep their head only, behind so many bytes that end with its length; random numbers cannot be packed."""


def main() -> None:
    """Writes the files to the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    target = parser.parse_args().folder.resolve()
    for name, (study, commands) in STUDIES.items():
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            shutil.copytree(Path(__file__).parent / "unversioned" / "images", place / "images")
            (place / "study.yaml").write_text(study, encoding="utf-8")
            for command in commands:
                words = [str(_best(place)) if word == "BEST" else word for word in command]
                _run(place, words[0], "study.yaml", *words[1:])
            (place / "front.json").write_text(_run(place, "front", "study.yaml", "--json"), encoding="utf-8")
            pack(place, target / f"{name}.tar.xz")


def _run(place: Path, *words: str) -> str:
    environment = os.environ | {
        "STORED_IMAGES": "images",
        "KDSEARCH_HOME": "home",
        "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
    }
    command = [sys.executable, "-m", "kdsearch", *words]
    return subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def _best(place: Path) -> int:
    rows = json.loads(_run(place, "front", "study.yaml", "--json"))
    return int(max(rows, key=lambda row: row["scores"]["dice"])["trial"])


def pack(place: Path, file: Path) -> None:
    """Packs the study file, its front, the record, the home and the picked folder."""
    paths = [place / name for name in ("study.yaml", "front.json", "mlflow.db")]
    paths += [path for part in ("home", "picked") for path in (place / part).rglob("*")]
    with tarfile.open(file, "w:xz", preset=9) as packed:
        for path in sorted(paths):
            left_out = path.name in LEFT_OUT or path.suffix in (".lock", ".png") or path.name.startswith(("confirm-", "test-"))
            if path.is_file() and not left_out:
                content = _small(path)
                info = tarfile.TarInfo(str(path.relative_to(place)))
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))


def _small(path: Path) -> bytes:
    """The file's content, with zeros instead of large random numbers."""
    content, place = path.read_bytes(), ZEROED.get(path.name)
    if place is None:
        return content
    head = place + int.from_bytes(content[8 if place == 10 else 0 : place], "little")
    return content[:head] + bytes(len(content) - head)


if __name__ == "__main__":
    main()
