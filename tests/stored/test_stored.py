"""What earlier commits stored is read, resumed, recorded, reported and shipped by the current code."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest

import kdsearch
from kdsearch.campaign.events import TrialEnded
from kdsearch.cli.main import main
from kdsearch.config.load import read_study
from kdsearch.config.study import StudyConfig
from kdsearch.search.run import run_study
from kdsearch.search.store import open_store
from kdsearch.tracking.location import choose_tracking
from kdsearch.trials.record import makes_teacher
from kdsearch.workers.jobs import EpochEnded
from tests.search.setups import trials_started

RELEASES = sorted(path.parent.name for path in Path(__file__).parent.glob("*/expected.json"))


@dataclass(frozen=True, slots=True)
class Stored:
    """A copy of what a release left, in the current folder."""

    study: StudyConfig
    outcomes: dict[int, str]
    dice: dict[int, float]
    tracking: str


@pytest.fixture(params=RELEASES)
def stored(request, tmp_path, record, monkeypatch) -> Stored:
    """Each release's folder, as its user would find it."""
    shutil.copytree(Path(__file__).parent / request.param, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    monkeypatch.setenv("STORED_IMAGES", "images")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record)
    expected = json.loads(Path("expected.json").read_text(encoding="utf-8"))
    return Stored(
        study=read_study(Path("study.yaml")),
        outcomes={int(number): outcome for number, outcome in expected["outcomes"].items()},
        dice={int(number): dice for number, dice in expected["dice"].items()},
        tracking=record,
    )


def test_there_is_a_release_to_read():
    assert "unversioned" in RELEASES


def test_trials_in_every_state_are_listed(stored):
    records = open_store(stored.study, Path("home"), create=False).records()
    assert {record.number: record.outcome for record in records} == stored.outcomes
    assert set(stored.outcomes.values()) == {"finished", "stopped", "rejected", "failed", "running"}
    assert {r.number: r.scores.dice for r in records if r.scores is not None} == pytest.approx(stored.dice)
    assert all(record.recipe is not None for record in records)


@pytest.mark.slow
def test_a_study_is_resumed_with_its_teacher(stored):
    running = next(number for number, outcome in stored.outcomes.items() if outcome == "running")
    events = list(run_study(stored.study, home=Path("home"), tracking=choose_tracking(stored.tracking, {})))
    assert not any(isinstance(event, EpochEnded) and makes_teacher(event.job) for event in events)
    assert next(trials_started(events)) == running
    ended = {event.record.number: event.record.outcome for event in events if isinstance(event, TrialEnded)}
    assert ended[running] in ("finished", "stopped")
    assert open_store(stored.study, Path("home"), create=False).complete()


def test_sync_records_every_ended_trial(stored, capsys):
    assert main(["sync", "study.yaml"]) == 0, capsys.readouterr().out
    mlflow.set_tracking_uri(stored.tracking)
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    outcomes = Counter(run.data.tags["kdsearch.outcome"] for run in runs if "kdsearch.trial" in run.data.tags)
    assert outcomes == Counter(outcome for outcome in stored.outcomes.values() if outcome != "running")


def test_front_and_report_are_shown(stored, capsys):
    assert main(["front", "study.yaml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    best = max(stored.dice, key=lambda number: stored.dice[number])
    assert best in [member["trial"] for member in shown]
    assert main(["report", "study.yaml", "--out", "report.html"]) == 0
    assert f"trial {best}" in Path("report.html").read_text(encoding="utf-8").lower()


def test_a_student_is_picked(stored, capsys):
    best = max(stored.dice, key=lambda number: stored.dice[number])
    assert main(["pick", "study.yaml", "--trial", str(best), "--no-latency", "--no-registry", "--out", "again"]) == 0
    assert "kdsearch predict again" in capsys.readouterr().out.replace("\n", " ")
    before, after = (kdsearch.load_student(folder)("images/images/00.png") for folder in ("picked", "again"))
    assert np.array_equal(before, after)


@pytest.mark.usefixtures("stored")
def test_a_picked_folder_is_read(capsys):
    for runtime in ("onnx", "int8", "torch"):
        assert kdsearch.load_student("picked", runtime=runtime)("images/images/00.png").shape == (32, 32)
    assert main(["evaluate", "picked", "folder=images"]) == 0
    assert "36 of 48 images were used to train or choose this student" in capsys.readouterr().out
