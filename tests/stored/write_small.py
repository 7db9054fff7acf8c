"""Packs what an earlier commit stores of a small study, in tens of kilobytes.

    git worktree add ../earlier COMMIT
    PYTHONPATH=../earlier python tests/stored/write_small.py tests/stored/NAME.tar.xz

Later code is tested on it (``tests/stored/test_small.py``), so it is never written again. The images and the teacher's
weights are those of ``unversioned``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

STUDY = """\
name: stored
seed: 3
data:
  sources: [{{reader: folder, folder: $STORED_IMAGES}}]
  size: 32
  split: {{validation: 0.25}}
teacher:
  architecture: linknet
  encoder: test_efficientnet
  encoder_depth: 3
  weights: none
  training: {{epochs: 2, learning_rate: 5e-3}}
student: {{width: {{choice: [2, 3]}}, depth: 1, convolutions: 1}}
distillation: {{path: {{choice: [none, logits]}}}}
training: {training}
search: {{sampler: random, trials: 2, workers: 1}}
"""
LEFT_OUT = ("teacher.safetensors", "logits.npy", "environment.txt")
"""Large, or of this machine."""


def main() -> None:
    """Writes the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--training", default="{epochs: 3, learning_rate: 1e-2}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(Path(__file__).parent / "unversioned" / "images", place / "images")
        (place / "study.yaml").write_text(STUDY.format(training=options.training), encoding="utf-8")
        environment = os.environ | {
            "STORED_IMAGES": "images",
            "KDSEARCH_HOME": "home",
            "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
        }
        for words in (["run"], ["pick", "--best", "--no-registry", "--out", "picked"]):
            command = [sys.executable, "-m", "kdsearch", words[0], "study.yaml", *words[1:]]
            subprocess.run(command, cwd=place, env=environment, check=True)
        pack(place, options.file)


def pack(place: Path, file: Path) -> None:
    """Packs the study file, the home without the data cache, and the picked folder."""
    paths = [place / "study.yaml", *(path for part in ("home", "picked") for path in (place / part).rglob("*"))]
    with tarfile.open(file, "w:xz", preset=9) as packed:
        for path in sorted(paths):
            inside = path.relative_to(place)
            made_again = inside.parts[:2] == ("home", "data") or path.suffix in (".lock", ".png")
            if path.is_file() and path.name not in LEFT_OUT and not made_again:
                packed.add(path, arcname=str(inside))


if __name__ == "__main__":
    main()
