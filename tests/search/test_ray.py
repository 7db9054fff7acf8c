"""A real Ray cluster of several nodes on this machine; one of them is lost during a study."""

from __future__ import annotations

import shutil

import pytest

from kdsearch.campaign.events import TrialEnded
from kdsearch.config.load import load_study
from kdsearch.errors import SearchError
from kdsearch.search.run import run_study
from kdsearch.tracking.location import Tracking
from kdsearch.trials.record import makes_teacher
from kdsearch.workers.dispatcher import Requeued
from kdsearch.workers.jobs import EpochEnded
from mlflow import MlflowClient
from tests.search.setups import trials_started
from tests.tiny import TINY

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster, nodes
    cluster.shutdown()


def _study(study_file, address, *, trials=6, epochs=6, more=""):
    text = TINY.replace("training: {epochs: 2}", f"training: {{epochs: {epochs}}}")
    search = f"trials: {trials}, checkpoint_every_s: 0, executor: ray, ray: {{address: '{address}'}}{more}, workers: 2"
    return load_study(study_file(text.replace("trials: 3", search).replace(", workers: 1}", "}")))


def _drive(driver, hear=lambda _: None):
    events = []
    while True:
        try:
            events.append(next(driver))
        except StopIteration as stop:
            return events, stop.value
        hear(events[-1])


@pytest.fixture
def home(tiny_home, tmp_path):
    return shutil.copytree(tiny_home, tmp_path / "home")


def test_study_survives_the_loss_of_a_node(study_file, cluster, home, record):
    machines, nodes = cluster
    study = _study(study_file, machines.address, trials=4, epochs=30)
    tracking = Tracking(uri=record)
    progressed = []

    def lose_a_node(event):
        progressed.append(isinstance(event, EpochEnded) and not makes_teacher(event.job))
        if sum(progressed) == 15 and progressed[-1]:
            machines.remove_node(nodes[1], allow_graceful=False)

    events, records = _drive(run_study(study, home=home, tracking=tracking), lose_a_node)
    assert any(isinstance(event, Requeued) and "Ray worker was lost" in event.reason for event in events)
    assert [record.number for record in records] == list(range(4))
    assert [record.outcome for record in records] == ["finished"] * 4
    assert [len(record.curve) for record in records] == [30] * 4
    ended = [event.record.number for event in events if isinstance(event, TrialEnded)]
    assert sorted(ended) == list(range(4)), "no trial ends twice"
    assert len(list(trials_started(events))) > 4
    client = MlflowClient(tracking.uri)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert sorted(run.data.tags["kdsearch.kind"] for run in runs) == ["study", "teacher", *["trial"] * 4]


def test_ray_and_processes_make_the_same_students(study_file, tiny_home, record, tmp_path):
    batches = ", deterministic: true, ask_batch: 2, pruning: {pruner: reach, warmup_epochs: 1, finished_trials: 1}"
    results = []
    for executor in ("ray", "processes"):
        home = shutil.copytree(tiny_home, tmp_path / executor)
        study = _study(study_file, "local", more=batches)
        study = study.model_copy(update={"search": study.search.model_copy(update={"executor": executor})})
        _, records = _drive(run_study(study, home=home, tracking=Tracking(uri=record)))
        results.append([(r.recipe, r.outcome, r.scores and r.scores.overlap, len(r.curve)) for r in records])
    assert results[0] == results[1]


def test_checkpoints_can_be_stored_anywhere_fsspec_writes(study_file, home, record, tmp_path):
    place = f"file://{tmp_path / 'elsewhere'}"
    study = _study(study_file, "local", trials=2, more=f", checkpoint_url: '{place}'")
    seen = []

    def look(_):
        seen.extend(path.name for path in (tmp_path / "elsewhere").glob("tiny-*/*.checkpoint"))

    _drive(run_study(study, home=home, tracking=Tracking(uri=record)), look)
    assert {"00000.checkpoint", "00001.checkpoint"} <= set(seen)
    assert not list((tmp_path / "elsewhere").glob("tiny-*/*"))


def test_missing_cluster_is_reported_before_the_search_starts(study_file, home, record):
    study = _study(study_file, "127.0.0.1:1")
    with pytest.raises(SearchError, match=r"search.ray.address: no Ray cluster answers at 127.0.0.1:1.*start one"):
        _drive(run_study(study, home=home, tracking=Tracking(uri=record)))
