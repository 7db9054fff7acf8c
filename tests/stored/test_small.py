"""What commits of every schema number stored is read by every command that reads."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from pathlib import Path

import pytest

import kdsearch
from kdsearch.cli.main import main
from kdsearch.config.identity import SCHEMA as IDENTITY
from kdsearch.config.load import load_study, read_study
from kdsearch.errors import StudyFileError
from kdsearch.search.store import read_store
from kdsearch.trials.recipe import SCHEMA as RECIPE
from kdsearch.trials.record import SCHEMA as TRIAL
from kdsearch.trials.record import students_of

HERE = Path(__file__).parent
STORED = {
    "before-patience-was-refused": "a study that later rules refuse, written before anything had a schema number",
    "recipe-1": "the first commit with schema numbers",
    "recipe-2": "distillation as a list of terms",
    "recipe-3": "recipes with a start; the last commit whose identities named places",
}

SPLIT_OTHERWISE = {"before-patience-was-refused"}
"""Images were split by another rule then, so nothing can be drawn or scored on the validation images."""


def _unpack(name: str, place: Path) -> None:
    """As its user would find it, with the images and the teacher's files of ``unversioned``, whose shapes fit."""
    with tarfile.open(HERE / f"{name}.tar.xz") as packed:
        packed.extractall(place, filter="data")
    shutil.copytree(HERE / "unversioned" / "images", place / "images")
    (weights,) = (HERE / "unversioned" / "home" / "teachers").glob("*/teacher.safetensors")
    (folder,) = (path for path in (place / "home" / "teachers").iterdir() if path.is_dir())
    shutil.copy(weights.with_name("logits.npy"), folder / "logits.npy")
    shutil.copy(weights, folder)


@pytest.fixture(params=STORED)
def stored(request, tmp_path, record, monkeypatch):
    """Each of them in the current folder; its name."""
    _unpack(request.param, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    monkeypatch.setenv("STORED_IMAGES", "images")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record)
    return request.param


def test_front_is_listed_with_the_stored_scores(stored, capsys):
    students = students_of(read_store(read_study(Path("study.yaml")), Path("home")).records())
    assert len(students) == 2
    assert main(["front", "study.yaml", "--json"]) == 0
    shown = {row["trial"]: row["scores"]["dice"] for row in json.loads(capsys.readouterr().out)}
    assert shown.items() <= {student.number: student.scores.dice for student in students}.items()
    assert max(student.scores.dice for student in students) > 0, stored


@pytest.mark.slow
def test_every_reading_command_reads_it(stored, capsys):
    assert main(["predict", "picked", "images/images/00.png", "--out", "masks"]) == 0
    assert main(["evaluate", "picked", "folder=images"]) == 0, capsys.readouterr()
    showing = (
        ["report", "study.yaml"],
        ["sync", "study.yaml"],
        ["pick", "study.yaml", "--best", "--no-latency", "--no-registry"],
    )
    if stored in SPLIT_OTHERWISE:
        for command in showing:
            assert main(command) == 2
            assert "the images or their split have changed since its trials were trained" in capsys.readouterr().err
        return
    for command in showing:
        assert main(command) == 0, capsys.readouterr()
    (again,) = Path("picked").glob("stored-*")
    before, after = (kdsearch.load_student(folder)("images/images/00.png") for folder in ("picked", again))
    assert (before == after).all()


def test_training_is_refused_by_the_rule_that_came_later(tmp_path, monkeypatch, capsys):
    _unpack("before-patience-was-refused", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        StudyFileError, match="patience stops training before the learning rate of schedule onecycle has fallen"
    ):
        load_study(Path("study.yaml"))
    for command in (["run", "study.yaml"], ["confirm", "study.yaml"], ["test", "study.yaml", "--trial", "0"]):
        assert main(command) == 2
        assert "patience stops training" in " ".join(capsys.readouterr().err.split())


def test_every_earlier_schema_number_is_among_them(tmp_path):
    """Whoever adds a step writes another file by the commit before; ``test_names.py`` reads the last two."""
    found: dict[str, set[int]] = {"recipe": set(), "trial": set(), "study": set()}
    for name in (*STORED, "names-1", "names-2"):
        with tarfile.open(HERE / f"{name}.tar.xz") as packed:
            packed.extractall(tmp_path / name, filter="data")
        with sqlite3.connect(tmp_path / name / "home" / "studies" / "stored" / "optuna.db") as database:
            attributes = [
                *database.execute("SELECT key, value_json FROM trial_user_attributes"),
                *database.execute("SELECT key, value_json FROM study_user_attributes"),
            ]
        database.close()
        for key, text in attributes:
            if key in ("recipe", "study"):
                found[key].add(json.loads(json.loads(text)).get("schema", 0))
        found["trial"].add(next((json.loads(text) for key, text in attributes if key == "schema"), 0))
    for what, schema in (("recipe", RECIPE), ("trial", TRIAL), ("study", IDENTITY)):
        assert set(range(schema.number)) <= found[what], what
