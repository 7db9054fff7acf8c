"""``kdsearch test``: the locked images are opened once, and every opening is recorded."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
from pathlib import Path

import pytest

import kdsearch
import mlflow
from kdsearch.cli.main import main
from kdsearch.config.load import load_study
from kdsearch.confirm.driver import FoldScored, PlanFixed, score_locked
from kdsearch.confirm.store import open_confirmation
from kdsearch.files.home import weights_path
from kdsearch.search.store import open_store
from tests.tiny import CONFIRMABLE


def _test(trial, *, stop_after=None):
    events = score_locked(load_study(Path("study.yaml")), home=Path("home"), trial=trial)
    seen = []
    for event in events:
        seen.append(event)
        if stop_after is not None and sum(isinstance(one, FoldScored) for one in seen) >= stop_after:
            events.close()
    return seen


def _store():
    study = load_study(Path("study.yaml"))
    search = open_store(study, Path("home"), create=False)
    return open_confirmation("sqlite:///home/studies/tiny/optuna.db", "tiny", study_id=search.id, kind="test")


@pytest.mark.usefixtures("searched")
def test_dry_run_opens_nothing(capsys):
    assert main(["test", "study.yaml", "--trial", "0", "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Nothing was scored or trained" in shown
    assert "6 trainings and 3 teachers: 2 students, 3 seeds" in shown
    assert "are scored, which uses up the test set" in shown
    assert _store() is None


@pytest.mark.usefixtures("tested")
def test_dry_run_mentions_earlier_uses_of_the_test_images(capsys):
    assert main(["test", "study.yaml", "--trial", "0", "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"used once, last on \S+ for trial 1 \(finished\); the same command", shown)
    assert _store().number == 1


@pytest.mark.usefixtures("searched")
def test_locked_images_are_scored_once_by_students_of_all_others(capsys):
    began = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    assert main(["test", "study.yaml", "--trial", "1"]) == 0
    assert "On the locked test images, at original resolution" in capsys.readouterr().out
    study = load_study(Path("study.yaml"))
    prepared = next(event.prepared for event in _test(1) if isinstance(event, PlanFixed))
    splits = prepared.images.splits
    (fold,) = {fold for repetition in prepared.folds for fold in repetition}
    assert fold.validation == splits.test
    assert set(splits.train) | {
        position for position in splits.validation if prepared.images.dataset.has_foreground[position]
    } == set(fold.train)
    assert prepared.plan.seeds == ((0,), (1,), (2,))
    assert prepared.plan.ships == 0
    for repeat in prepared.plan.repeats():
        assert weights_path(Path("home"), study.name, prepared.plan.job(repeat)).is_file()
    receipt = _store().receipt
    assert receipt["digest"] == prepared.plan.digest
    assert receipt["by"]
    sealed = datetime.datetime.fromisoformat(receipt["sealed"])
    assert began <= sealed <= datetime.datetime.now(datetime.UTC)

    assert main(["test", "study.yaml", "--trial", "1", "--json"]) == 0, "shown again, not opened again"
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["number"], found["repetitions"]) == ("test", 1, 3)
    assert [arm["role"] for arm in found["arms"]] == ["member", "twin"]

    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], max_results=1000)
    kinds = [run.data.tags["kdsearch.kind"] for run in runs]
    assert (kinds.count("test"), kinds.count("tested"), kinds.count("repeat")) == (1, 3, 9)


@pytest.mark.usefixtures("tested")
@pytest.mark.slow
def test_second_opening_is_refused_unless_it_is_asked_for_and_then_counted(capsys):
    study = kdsearch.Study("study.yaml", home="home")
    assert main(["test", "study.yaml", "--trial", "0"]) == 2
    message = capsys.readouterr().err
    assert "its test images were used for trial" in message
    assert "--again does so, and every card and report shows how often they were used" in message
    again = study.test(0, again=True)
    assert again.number == 2
    picked = study.pick(trial=0, registry=False, latency=False)
    card = (picked.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "locked test images with a lesion, used 2 times" in card
    assert "locked for testing (used 2 times)" in card
    page = study.report().read_text(encoding="utf-8")
    assert "Locked test images" in page
    assert "The test set has been used 2 times." in page


@pytest.mark.usefixtures("searched")
def test_stopped_test_resumes_without_a_second_opening():
    _test(0, stop_after=3)
    assert not _store().complete()
    seen = _test(0)
    assert 0 < sum(isinstance(event, FoldScored) for event in seen) < 9
    assert _store().complete()
    assert _store().number == 1


@pytest.mark.usefixtures("searched")
def test_opening_that_was_broken_off_counts_and_says_nothing_of_other_recipes():
    study = kdsearch.Study("study.yaml", home="home")
    _test(0, stop_after=1)
    picked = study.pick(trial=1, registry=False, latency=False)
    card = (picked.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "locked for testing (used 1 time)" in card
    assert "The locked test images were used only to test another student's settings." in card
    assert main(["test", "study.yaml", "--trial", "0"]) == 0, "it is resumed"
    assert _store().number == 1


@pytest.mark.usefixtures("searched")
def test_another_trial_may_be_opened_while_one_is_broken_off():
    _test(0, stop_after=1)
    assert main(["test", "study.yaml", "--trial", "1"]) == 2
    assert main(["test", "study.yaml", "--trial", "1", "--again"]) == 0
    assert _store().number == 2


@pytest.mark.usefixtures("tested")
def test_settings_of_confirm_do_not_hide_a_result(capsys):
    Path("study.yaml").write_text(CONFIRMABLE.replace("folds: 2", "folds: 3"), encoding="utf-8")
    assert main(["test", "study.yaml", "--trial", "1"]) == 0
    assert "On the locked test images, at original resolution" in capsys.readouterr().out
    assert _store().number == 1


@pytest.mark.usefixtures("searched")
def test_missing_trial_is_named(capsys):
    assert main(["test", "study.yaml", "--trial", "17"]) == 2
    assert "trial 17: no finished student has this number" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("searched")
def test_closed_images_are_not_claimed():
    picked = kdsearch.Study("study.yaml", home="home").pick(trial=0, registry=False, latency=False)
    card = (picked.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "locked for testing (not used yet)" in card
    assert "These scores have not been checked on a held-out or external test set." in card


@pytest.mark.usefixtures("searched")
def test_images_that_were_exchanged_are_refused(capsys):
    shutil.rmtree("home/data", ignore_errors=True)
    Path("study.yaml").write_text(CONFIRMABLE.replace("images: 40", "images: 41"), encoding="utf-8")
    assert main(["test", "study.yaml", "--trial", "0"]) == 2
    assert "data.sources" in capsys.readouterr().err
