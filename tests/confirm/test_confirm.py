"""``kdsearch confirm`` from a finished search to answers, stopped and resumed, in storage, MLflow and pick."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest

import kdsearch
import mlflow
from kdsearch.cli.main import main
from kdsearch.config.load import load_study
from kdsearch.confirm.driver import FoldScored, PlanFixed, confirm_study
from kdsearch.confirm.store import TEACHER, open_confirmation
from kdsearch.errors import KdsearchError, SearchError
from kdsearch.search.store import open_store
from kdsearch.statistics.confirmation import dump_confirmation
from tests.shared import copy_place
from tests.tiny import CONFIRMABLE

URL = "sqlite:///home/studies/tiny/optuna.db"


def _confirm(*, stop_after=None, anew=False):
    """The answers, or None where it was stopped after so many scored trainings."""
    study = load_study(Path("study.yaml"))
    events = confirm_study(study, home=Path("home"), anew=anew)
    seen = []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value, seen
        seen.append(event)
        if stop_after is not None and sum(isinstance(one, FoldScored) for one in seen) >= stop_after:
            events.close()
            return None, seen


def test_dry_run_shows_plan_and_cost_and_stores_nothing(searched, capsys):
    assert main(["confirm", "study.yaml", "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Nothing was stored or trained" in shown
    assert "2 folds, 2 repetitions (a pilot; use 3 for publishable claims). Estimated time:" in shown
    assert "detects an effect of distillation of +2 points in" in shown
    assert optuna.get_all_study_names(f"sqlite:///{searched}/home/studies/tiny/optuna.db") == ["tiny"]


@pytest.mark.usefixtures("searched")
def test_dry_run_mentions_an_existing_sealed_plan(capsys):
    _confirm(stop_after=2)
    assert main(["confirm", "study.yaml", "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "A plan was stored once, last on" in shown
    assert "unfinished; without --dry-run it is resumed or shown" in shown


@pytest.mark.usefixtures("searched")
@pytest.mark.slow
def test_study_is_confirmed_recorded_and_picked_from(capsys):
    assert main(["confirm", "study.yaml"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Plan stored on 20" in shown
    assert "Cross-validated, at original resolution" in shown
    assert "kdsearch pick study.yaml --params" in shown
    study = kdsearch.Study("study.yaml", home="home")
    found = study.confirmation()
    assert (found.folds, found.repetitions, found.number) == (2, 2, 1)
    assert 25 < found.images < 40
    assert found.effects
    assert found.verdict == "inconclusive"
    assert all(0 <= arm.dice.low <= arm.dice.mean <= arm.dice.high <= 1 for arm in (*found.arms, found.teacher))

    assert main(["confirm", "study.yaml", "--json"]) == 0, "again: the same answers, nothing trained"
    assert json.loads(capsys.readouterr().out) == json.loads(dump_confirmation(found))

    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = [run.data.tags["kdsearch.kind"] for run in runs]
    assert kinds.count("confirm") == 1
    assert kinds.count("confirmed") == len(found.arms) + 1
    assert kinds.count("repeat") == 4 * (len(found.arms) + 1)
    member = found.members[0]
    recorded = next(
        run for run in runs if run.data.tags.get("kdsearch.job") == f"{found.plan}-{found.sealed}-{member.id}"
    )
    assert recorded.data.metrics["dice"] == pytest.approx(member.dice.mean)
    assert any(tag.startswith("mlflow.sharedViewState.kdsearch-confirmed-") for tag in experiment.tags)
    assert main(["sync", "study.yaml"]) == 0
    assert len(client.search_runs([experiment.experiment_id], max_results=1000)) == len(runs)

    picked = study.pick(params=str(member.params), registry=False, latency=False)
    assert picked.trial in {arm.trial for arm in found.members}
    assert "best confirmed Dice of" in picked.reason
    assert "Cross-validated on" in picked.warning
    assert "Cross-validated on" in (picked.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    smallest = study.pick(smallest_within=1.0, registry=False, latency=False, out="smallest")
    assert smallest.trial == found.members[0].trial


@pytest.mark.usefixtures("searched")
def test_missing_confirmation_is_reported():
    picked = kdsearch.Study("study.yaml", home="home").pick(registry=False, latency=False)
    assert "kdsearch confirm gives an honest one" in picked.warning


@pytest.mark.usefixtures("searched")
def test_stopped_confirmation_resumes_to_the_same_numbers(stages):
    whole = kdsearch.Study(stages / "confirmed" / "study.yaml", home=stages / "confirmed" / "home").confirmation()
    for stop in (1, 2, 3):
        assert _confirm(stop_after=stop)[0] is None
    resumed, seen = _confirm()
    assert sum(isinstance(one, FoldScored) for one in seen) < 4 * (len(whole.arms) + 1), "some were there already"
    assert dataclasses.replace(resumed, sealed=whole.sealed) == whole


@pytest.mark.usefixtures("searched")
def test_every_fold_is_scored_once_by_last_weights():
    found, seen = _confirm()
    scored = [(one.result.arm, one.result.repetition, one.result.fold) for one in seen if isinstance(one, FoldScored)]
    assert len(scored) == len(set(scored)) == 4 * (len(found.arms) + 1)
    study = load_study(Path("study.yaml"))
    store = open_confirmation(URL, "tiny", study_id=open_store(study, Path("home"), create=False).id)
    for result in store.results().values():
        assert result.scores.best_epoch == result.scores.epochs == (1 if result.arm == TEACHER else 2)
        assert result.scores.native is not None


@pytest.mark.usefixtures("searched")
def test_images_of_a_fold_train_nothing_in_it():
    _, seen = _confirm(stop_after=1)
    prepared = next(one.prepared for one in seen if isinstance(one, PlanFixed))
    for repetition in prepared.folds:
        for fold in repetition:
            assert set(fold.train).isdisjoint(fold.validation)
            assert set(fold.test).isdisjoint({*fold.train, *fold.validation})


@pytest.mark.usefixtures("searched")
def test_changed_settings_need_a_new_plan_once_one_is_sealed(capsys):
    _confirm(stop_after=1)
    Path("study.yaml").write_text(CONFIRMABLE.replace("folds: 2", "folds: 2, margin: 0.03"), encoding="utf-8")
    assert main(["confirm", "study.yaml"]) == 2
    assert "confirm.margin: was 0.02, is 0.03" in capsys.readouterr().err
    found, _ = _confirm(anew=True)
    assert found.number == 2
    assert found.margin == 0.03


@pytest.mark.usefixtures("searched")
def test_plan_that_was_changed_after_it_was_sealed_is_refused():
    _confirm(stop_after=1)
    stored = optuna.load_study(storage=URL, study_name="tiny.confirm-1")
    stored.set_user_attr("plan", stored.user_attrs["plan"].replace('"margin": 0.02', '"margin": 0.5'))
    with pytest.raises(SearchError, match="was changed after it was sealed"):
        _confirm()


@pytest.mark.usefixtures("confirmed")
def test_unfinished_new_plan_hides_nothing_that_was_confirmed():
    study = kdsearch.Study("study.yaml", home="home")
    found = study.confirmation()
    _confirm(anew=True, stop_after=1)
    assert study.confirmation() == found


@pytest.mark.usefixtures("searched")
def test_unknown_setting_is_named(capsys):
    Path("study.yaml").write_text(CONFIRMABLE.replace("folds: 2", "fold: 2"), encoding="utf-8")
    assert main(["confirm", "study.yaml"]) == 2
    assert "confirm.fold" in capsys.readouterr().err


@pytest.mark.usefixtures("searched")
def test_study_that_never_ran_has_nothing_to_confirm(capsys):
    shutil.rmtree("home")
    assert main(["confirm", "study.yaml", "--dry-run"]) == 2
    assert "has not been run yet" in capsys.readouterr().err


@pytest.mark.usefixtures("searched")
def test_repeats_and_confirm_exclude_each_other():
    study = load_study(Path("study.yaml")).model_copy(update={"replicates": 2})
    with pytest.raises(KdsearchError, match="repeats and confirm cannot be combined"):
        list(confirm_study(study, home=Path("home")))


@pytest.mark.usefixtures("searched")
def test_racing_answers_for_each_planned_student_or_says_why_not():
    Path("study.yaml").write_text(CONFIRMABLE.replace("folds: 2", "folds: 2, racing: true"), encoding="utf-8")
    found, seen = _confirm()
    (plan,) = {one.prepared.plan.digest: one.prepared.plan for one in seen if isinstance(one, PlanFixed)}.values()
    answered, left_out = {arm.id for arm in found.arms}, {arm for arm, _ in found.left_out}
    assert plan.settings.racing
    assert answered | left_out == {arm.id for arm in plan.arms}
    assert not answered & left_out
    scored = [one.result.arm for one in seen if isinstance(one, FoldScored)]
    assert {arm: scored.count(arm) for arm in answered} == dict.fromkeys(answered, 4), "in every fold, twice"
    assert all(scored.count(arm) < 4 for arm in left_out)


@pytest.mark.slow
def test_confirmation_that_is_killed_six_times_ends_as_the_undisturbed_one(searched, tmp_path):
    place = searched
    text = CONFIRMABLE.replace("executor: inline", "workers: 2, checkpoint_every_s: 0, retries: 100")
    Path("study.yaml").write_text(text.replace("epochs: 2", "epochs: 30"), encoding="utf-8")
    shutil.rmtree("home/studies")
    kdsearch.Study("study.yaml", home="home").run()
    other = copy_place(place, tmp_path / "other")
    assert _start(place).wait() == 0
    kills, chance = 0, random.Random(3)
    while kills < 6:
        driver = _start(other)
        _wait_for_training(driver, other)
        time.sleep(chance.uniform(0, 1.5))
        if driver.poll() is not None:
            break
        workers = [
            child for child in psutil.Process(driver.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        if kills % 3 == 0 and workers:
            chance.choice(workers).kill()
            kills += 1
            time.sleep(chance.uniform(0, 3))
        driver.kill()
        kills += 1
        driver.wait()
    assert kills >= 4, "it ended before it could be killed"
    assert _start(other).wait() == 0
    answers = [json.loads(_answers(folder)) for folder in (place, other)]
    for one in answers:
        one.pop("sealed")
    assert answers[0] == answers[1]
    assert list((other / "home" / "studies" / "tiny" / "checkpoints").glob("*")) == []


def _wait_for_training(driver, folder):
    """Until a checkpoint of a student is written, so that a kill costs something; or the driver ends."""
    checkpoints = folder / "home" / "studies" / "tiny" / "checkpoints"
    before = {path: path.stat().st_mtime_ns for path in checkpoints.glob("*")}
    deadline = time.monotonic() + 120
    while driver.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):  # checkpoints come and go
            if any(before.get(path) != path.stat().st_mtime_ns for path in checkpoints.glob("*")):
                return
        time.sleep(0.05)


def _start(folder):
    environment = os.environ | {"KDSEARCH_HOME": "home", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    with (folder / "log").open("a") as log:
        command = [sys.executable, "-m", "kdsearch", "confirm", "study.yaml"]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def _answers(folder):
    return dump_confirmation(kdsearch.Study(folder / "study.yaml", home=folder / "home").confirmation())
