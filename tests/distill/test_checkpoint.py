"""A training run that is killed and resumed gives bit-identical results to an uninterrupted one."""

from __future__ import annotations

import dataclasses
import threading

import fsspec
import pytest
import torch

from kdsearch.config.networks import UNetSpec
from kdsearch.config.training import TeacherTraining
from kdsearch.distill.checkpoint import Checkpoint
from kdsearch.distill.loop import train
from kdsearch.distill.objective import Supervised
from kdsearch.distill.result import CheckpointAway
from kdsearch.files.atomic import names_in, read_whole, remove
from kdsearch.files.digests import digest
from kdsearch.models.students import build_student
from tests.distill.discs import DATA

SPEC = TeacherTraining(epochs=5, batch_size=8, learning_rate=1e-2)


def _checkpoint(place, **changes):
    return Checkpoint(str(place), **{"subject": "this", "every_s": 0.0} | changes)


def _training(model, spec, checkpoint=None):
    objective = Supervised(model, spec.supervised_loss)
    return train(model, objective, DATA, spec, seed=3, checkpoint=checkpoint)


def _student():
    return build_student(UNetSpec(width=4, depth=2, convs_per_stage=1, conv="standard"), seed=0)


def _untimed(reports):
    return [dataclasses.replace(report, seconds=0.0) for report in reports]


@pytest.mark.parametrize("epochs_before", [0, 1, 3, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "schedule": "cosine", "gradient_clip": 1.0},
        {"optimizer": "adam", "schedule": "constant"},
        {"patience": 1, "learning_rate": 1e-4, "schedule": "constant"},
        {"ema_epochs": 1.5},
    ],
)
def test_interrupted_training_equals_uninterrupted_training(tmp_path, epochs_before, changes):
    spec = SPEC.model_copy(update=changes)
    whole = _student()
    reports = list(_training(whole, spec))
    first = _training(_student(), spec, _checkpoint(tmp_path / "c"))
    for _ in range(min(epochs_before, len(reports))):
        next(first)
    first.close()
    again = _student()
    torch.nn.init.zeros_(again.head.weight)
    told = list(_training(again if epochs_before else _student(), spec, _checkpoint(tmp_path / "c")))
    assert _untimed(told) == _untimed(reports)
    if epochs_before:
        pairs = zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_training_time_includes_the_time_before_an_interruption(tmp_path):
    first = _training(_student(), SPEC, _checkpoint(tmp_path / "c"))
    spent = [next(first).seconds for _ in range(3)][-1]
    first.close()
    seconds = [report.seconds for report in _training(_student(), SPEC, _checkpoint(tmp_path / "c"))]
    assert seconds == sorted(seconds)
    assert seconds[2] == spent


def test_checkpoint_of_another_subject_is_not_resumed(tmp_path):
    list(_training(_student(), SPEC, _checkpoint(tmp_path / "c")))
    other = _training(_student(), SPEC, _checkpoint(tmp_path / "c", subject="that"))
    assert next(other).seconds < 1000
    assert read_whole(str(tmp_path / "c"))[4:20] == digest("that").encode()


@pytest.mark.parametrize("cut", [0, 3, 15, 500, -1])
def test_damaged_checkpoint_is_reported_and_ignored(tmp_path, caplog, cut):
    reports = list(_training(_student(), SPEC, _checkpoint(tmp_path / "c")))
    whole = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(whole[:cut])
    again = list(_training(_student(), SPEC, _checkpoint(tmp_path / "c")))
    assert _untimed(again) == _untimed(reports)
    assert ("is damaged; training starts from scratch" in caplog.text) == (cut in {500, -1})


def test_checkpoint_is_not_written_before_its_interval_has_passed(tmp_path):
    list(_training(_student(), SPEC, _checkpoint(tmp_path / "c", every_s=1000.0)))
    assert not (tmp_path / "c").exists()


def test_unwritable_checkpoint_path_does_not_stop_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    checkpoint = _checkpoint(tmp_path / "file" / "c")
    assert len(list(_training(_student(), SPEC, checkpoint))) == 5
    assert checkpoint.failure.startswith("no checkpoint: ")


def test_temporarily_unreadable_checkpoint_is_not_overwritten(tmp_path):
    spec = SPEC.model_copy(update={"epochs": 3})
    list(_training(_student(), spec, _checkpoint(tmp_path / "c")))
    (tmp_path / "c").rename(tmp_path / "away")
    (tmp_path / "c").mkdir()  # every read from it raises OSError
    with pytest.raises(CheckpointAway, match="cannot read its checkpoint: Is a directory"):
        next(_training(_student(), spec, _checkpoint(tmp_path / "c", waits_s=0.0)))

    def come_back():
        (tmp_path / "c").rmdir()
        (tmp_path / "away").rename(tmp_path / "c")

    timer = threading.Timer(0.7, come_back)
    timer.start()
    checkpoint = _checkpoint(tmp_path / "c", waits_s=20.0)
    assert len(list(_training(_student(), spec, checkpoint))) == 3
    assert checkpoint.resumed_epochs == 3
    timer.join()


def test_checkpoint_works_without_a_file_system():
    place = "memory://students/7.checkpoint"
    reports = list(_training(_student(), SPEC, Checkpoint(place, subject="this", every_s=0.0)))
    assert fsspec.filesystem("memory").exists(place)
    again = list(_training(_student(), SPEC, Checkpoint(place, subject="this", every_s=0.0)))
    assert again == reports
    remove(place)
    assert read_whole(place) is None


def test_bucket_stores_checkpoints_and_its_outage_does_not_stop_training(bucket):
    place, spec = "s3://bucket/place/00001.checkpoint", SPEC
    reports = list(_training(_student(), spec))
    first = _training(_student(), spec, _checkpoint(place))
    for _ in range(3):
        next(first)
    first.close()
    assert names_in("s3://bucket/place") == ["00001.checkpoint"]
    assert _untimed(_training(_student(), spec, _checkpoint(place))) == _untimed(reports)
    remove(place)
    assert names_in("s3://bucket/place") == []
    checkpoint = _checkpoint(place)
    training = _training(_student(), spec.model_copy(update={"epochs": 2}), checkpoint)
    next(training)
    bucket.stop()
    assert len(list(training)) == 1
    assert "Could not connect" in checkpoint.failure
    with pytest.raises(CheckpointAway, match="cannot read its checkpoint: .*Could not connect"):
        next(_training(_student(), spec, _checkpoint(place, waits_s=0.0)))
    with pytest.raises(OSError, match="Could not connect"):
        remove(place)
