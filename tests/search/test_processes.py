"""Worker processes: they know neither Optuna nor MLflow, and a dead one costs one trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from kdsearch.config.ranges import IntRange
from kdsearch.config.space import choose
from kdsearch.data.cache import load_dataset
from kdsearch.data.splits import split
from kdsearch.distill.arrays import training_data
from kdsearch.distill.teacher import teacher_folder, train_teacher
from kdsearch.errors import SearchError
from kdsearch.search.executors.processes import ProcessExecutor
from kdsearch.search.executors.tasks import Failed, Progressed, Setup, Succeeded, Task

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture
def setup(tiny, tmp_path):
    dataset = load_dataset(tiny.data, tmp_path)
    splits = split(dataset, tiny.data.split, train_without_lesion=False)
    folder = teacher_folder(tiny, splits.fingerprint, tmp_path)
    for _ in train_teacher(tiny, training_data(dataset, splits, torch.device("cpu")), folder):
        pass
    return Setup(
        home=tmp_path,
        data_fingerprint=dataset.fingerprint,
        splits=splits,
        teacher=tiny.teacher,
        teacher_folder=folder,
        size=32,
        device="cpu",
        threads=1,
    )


def _task(tiny, tmp_path, number, *, epochs=2):
    recipe = choose(
        tiny, lambda _, value: value.bounds[0] if isinstance(value, IntRange) else value.choice[1], seed=number
    )
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": epochs})})
    return Task(number=number, recipe=recipe, weights=tmp_path / "out" / f"{number}.safetensors")


def _until(executor, kind, *, seconds=60):
    events = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        events += executor.poll(0.5)
        if any(isinstance(event, kind) for event in events):
            return events
    pytest.fail(f"no {kind} within {seconds} s, but {events}")


def test_workers_make_students_die_and_are_replaced(tiny, setup, tmp_path):
    executor = ProcessExecutor(setup, workers=1)
    try:
        executor.submit(_task(tiny, tmp_path, 0))
        assert executor.room() == 0
        events = _until(executor, Succeeded)
        assert [type(event) for event in events] == [Progressed, Progressed, Succeeded]
        assert (tmp_path / "out" / "0.safetensors").is_file()
        executor.submit(_task(tiny, tmp_path, 1, epochs=10_000))
        _until(executor, Progressed)
        os.kill(_children(executor)[0], signal.SIGKILL)
        events = _until(executor, Failed)
        assert events[-1] == Failed(number=1, reason="the worker process ended with signal 9")
        assert executor.room() == 1
        executor.submit(_task(tiny, tmp_path, 2))
        assert _until(executor, Succeeded)[-1].number == 2
        children = _children(executor)
    finally:
        executor.close()
    assert not any(_alive(pid) for pid in children)


def test_interrupt_does_not_reach_workers(tiny, setup, tmp_path):
    executor = ProcessExecutor(setup, workers=1)
    try:
        executor.submit(_task(tiny, tmp_path, 0, epochs=3))
        _until(executor, Progressed)
        os.kill(_children(executor)[0], signal.SIGINT)
        assert _until(executor, Succeeded)[-1].number == 0
    finally:
        executor.close()


def test_worker_that_cannot_start_stops_the_study(setup):
    executor = ProcessExecutor(setup.__class__(**{**_fields(setup), "data_fingerprint": "absent"}), workers=1)
    try:
        with pytest.raises(SearchError, match=r"a worker process could not start \(exit code 1\)"):
            _until(executor, Failed)
    finally:
        executor.close()


def test_worker_imports_neither_optuna_nor_mlflow():
    strangers = ("optuna", "mlflow", "timm")
    code = f"import sys, kdsearch.search.executors.worker; print([m for m in {strangers} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def _fields(setup):
    return {name: getattr(setup, name) for name in setup.__slots__}


def _children(executor) -> list[int]:
    return [worker.process.pid for worker in executor._workers]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
