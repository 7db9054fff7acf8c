"""What a worker reports about a job that cannot finish."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from kdsearch.config.networks import UNetSpec
from kdsearch.config.training import TrainingSpec
from kdsearch.distill.result import CheckpointAway, Trained
from kdsearch.trials.recipe import Recipe
from kdsearch.workers.jobs import Job, JobFailed, WorkerLost, WorkerReady, carry_out
from tests.front.students import scores

RECIPE = Recipe(student=UNetSpec(), distillation=None, training=TrainingSpec(), seed=0)


class _Trainer:
    """Trains in no time, or not at all."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def train(self, *_, **__):
        if self._error is not None:
            raise self._error
        return Trained(scores=scores(dice=0.5, params=10, macs=20), weights=b"weights")
        yield


def _carried_out(trainer: _Trainer, tmp_path: Path, **settings):
    job = Job(
        id="0",
        recipe=RECIPE,
        materials=SimpleNamespace(key="a", open=None),
        checkpoint=str(tmp_path / "c"),
        subject="this",
        checkpoint_every_s=0.0,
        **settings,
    )
    return list(carry_out(SimpleNamespace(get=lambda *_: trainer), job))


def test_student_that_cannot_be_exported_is_a_failed_job(tmp_path):
    """torch's exporter can raise anything; in the driver, that ended the study, also after each restart."""

    def export(student, weights):
        assert (student, weights) == (RECIPE.student, b"weights")
        raise RuntimeError("no symbolic function for it\nand more")

    begun, failed = _carried_out(_Trainer(), tmp_path, export=export)
    assert isinstance(begun, WorkerReady)
    assert isinstance(failed, JobFailed)
    assert failed.reason == "ONNX export failed: RuntimeError: no symbolic function for it"
    assert "Traceback" in failed.traceback


def test_student_is_exported_where_it_was_trained(tmp_path):
    _, succeeded = _carried_out(_Trainer(), tmp_path, export=lambda _, weights: weights + b" exported")
    assert succeeded.trained.onnx == b"weights exported"


def test_unreachable_checkpoint_loses_the_job_instead_of_failing_it(tmp_path):
    _, lost = _carried_out(_Trainer(CheckpointAway("it cannot be read: timed out")), tmp_path)
    assert lost == WorkerLost(job="0", reason="it cannot be read: timed out")
