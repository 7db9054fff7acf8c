"""A study whose teacher is a folder of predictions, from the file to the confirmed front and the card."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import kdsearch
from kdsearch.campaign.preparation import read_images
from kdsearch.cli.main import USER_ERROR, main
from kdsearch.config.load import load_study
from kdsearch.data.cache import load_dataset
from tests.tiny import TINY

OLD = "teacher:\n  encoder_depth: 3\n  weights: none\n  training: {epochs: 1}\n"
STUDY = TINY.replace(OLD, "teacher: {kind: predictions, folder: maps}\n").replace("workers: 1", "executor: inline")


@pytest.fixture
def place(tmp_path, tiny_home, record, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record)
    shutil.copytree(tiny_home / "data", "home/data")
    Path("study.yaml").write_text(STUDY + "\nconfirm: {folds: 2, repetitions: 1}\n", encoding="utf-8")
    dataset = load_dataset(load_study(Path("study.yaml")).data, Path("home"))
    Path("maps").mkdir()
    for info, mask in zip(dataset.infos, dataset.masks, strict=True):
        np.save(f"maps/{Path(info.id).name}.npy", (np.asarray(mask) > 0).astype(np.uint8))
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_study_runs_is_confirmed_tested_picked_and_reported(capsys):
    assert main(["run", "study.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "teacher   predictions in maps; it may have been trained on the images used for scoring" in shown
    assert "teacher   Dice 100.0 %, of unknown size" in shown
    study = kdsearch.Study("study.yaml", home="home")
    found = study.confirm()
    assert any("the teacher is maps in every fold; if it was trained on" in warning for warning in found.warnings)
    assert study.test(trial=0).members
    picked = study.pick(trial=0, registry=False, latency=False)
    card = (picked.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Teacher: predictions in maps; it may have been trained on the images" in card
    assert "The teacher (of unknown size) reaches 100.0 % Dice on the same images" in card
    page = study.report().read_text(encoding="utf-8")
    assert "Dice 100.0 %, of unknown size" in page


@pytest.mark.usefixtures("place")
def test_missing_prediction_stops_the_run_until_it_is_added(capsys):
    images = read_images(load_study(Path("study.yaml")), Path("home"))
    gone = Path("maps") / f"{Path(images.dataset.infos[images.splits.train[0]].id).name}.npy"
    content = gone.read_bytes()
    gone.unlink()
    assert main(["run", "study.yaml"]) == USER_ERROR
    assert f"/{gone.stem}; add files named NAME or SOURCE/NAME" in capsys.readouterr().err
    gone.write_bytes(content)
    assert main(["run", "study.yaml"]) == 0
