"""Workers and drivers are killed at random; every trial exists once and the front equals an undisturbed run's."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from safetensors.torch import load_file

from kdsearch.config.load import load_study
from kdsearch.files.home import weights_path
from kdsearch.front.dominance import front_of
from kdsearch.search.store import open_store
from kdsearch.trials.record import job_of_trial, students_of

STUDY = """
name: chaos
seed: 5
data:
  sources: [{{reader: phantom, images: 60}}]
  size: 32
teacher:
  encoder_depth: 3
  weights: none
  training: {{epochs: 1}}
student: {{width: {{int: [2, 6]}}, depth: {{int: [2, 3]}}, convs_per_stage: 1}}
distillation: {{path: {{choice: [none, logits, regressor]}}}}
training: {{epochs: {epochs}, learning_rate: {{float: [1e-3, 1e-2], log: true}}}}
search:
  trials: {trials}
  startup_trials: 4
  limits: {{params: 6k}}
  workers: {workers}
  deterministic: true
  ask_batch: 4
  retries: 1000
  checkpoint_every_s: 0
  pruning: {{pruner: reach, warmup_epochs: 1, finished_trials: 3}}
"""


@pytest.mark.parametrize(
    ("kills", "trials", "epochs"),
    [
        pytest.param(6, 6, 60, marks=pytest.mark.slow),
        pytest.param(50, 40, 60, marks=pytest.mark.endurance),
    ],
    ids=["short", "fifty"],
)
def test_repeatedly_killed_study_equals_an_undisturbed_one(tmp_path, kills, trials, epochs):
    quiet, chaos = tmp_path / "quiet", tmp_path / "chaos"
    _prepare(quiet, trials, epochs, workers=1)
    assert _start(quiet).wait() == 0
    _prepare(chaos, trials, epochs, workers=2)
    _harass(chaos, random.Random(kills), kills)
    expected, got = _records(quiet), _records(chaos)
    assert [_result(record) for record in got] == [_result(record) for record in expected]
    assert [record.number for record in got] == list(range(len(got)))
    assert {record.outcome for record in got} <= {"finished", "stopped", "rejected"}
    objectives = ("dice", "params", "macs")
    fronts = [[member.number for member in front_of(students_of(records), objectives)] for records in (expected, got)]
    assert fronts[0] == fronts[1]
    for number in fronts[0]:
        a, b = (load_file(weights_path(place / "home", "chaos", job_of_trial(number))) for place in (quiet, chaos))
        assert all(a[name].equal(b[name]) for name in a)
    for place in (quiet, chaos):
        assert list((place / "home" / "studies" / "chaos" / "checkpoints").glob("*")) == []
    assert _recorded(quiet) == _recorded(chaos) == len(got)


def _prepare(place, trials, epochs, *, workers):
    place.mkdir()
    (place / "study.yaml").write_text(STUDY.format(trials=trials, epochs=epochs, workers=workers))


def _start(place):
    environment = os.environ | {"KDSEARCH_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
    with (place / "log").open("a") as log:
        command = [sys.executable, "-m", "kdsearch", "run", "study.yaml"]
        return subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)


def _harass(place, chance, kills):
    """Kills the driver and its workers equally often, at random moments, until the study ends."""
    victims = ["driver", "worker"] * (kills // 2)
    chance.shuffle(victims)
    driver = _start(place)
    while True:
        if driver.poll() == 0:
            assert not victims, f"the study ended with {len(victims)} kills to come; make it longer"
            return
        if driver.poll() is not None:
            assert driver.returncode == -signal.SIGKILL, (place / "log").read_text()
            driver = _start(place)
        time.sleep(chance.choice([chance.uniform(0, 1), chance.uniform(0, 5)]))
        workers = _workers(driver)
        if not victims or not workers:
            continue
        if victims[-1] == "worker":
            killed = _kill(chance.choice(workers).pid)
        else:
            killed = _kill(driver.pid)
            driver.wait()
        if killed:
            victims.pop()


def _workers(driver):
    try:
        children = psutil.Process(driver.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _records(place):
    return open_store(load_study(place / "study.yaml"), place / "home", create=False).records()


def _result(record):
    """Everything about a trial except durations."""
    curve = [(report.epoch, report.dice, report.train_loss, report.validation_loss) for report in record.curve]
    return record.number, record.outcome, record.reason, record.recipe, record.scores and record.scores.overlap, curve


def _recorded(place):
    """The number of the trials' MLflow runs, each of a different trial."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place / 'mlflow' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("chaos").experiment_id], "tags.`kdsearch.kind` = 'trial'")
    numbers = [run.data.tags["kdsearch.trial"] for run in runs]
    assert len(set(numbers)) == len(numbers)
    return len(numbers)
