"""Worker processes: they know neither Optuna nor MLflow, and a dead one costs one trial."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from safetensors.torch import load

from kdsearch.config.ranges import IntRange
from kdsearch.errors import SearchError
from kdsearch.search.recipes import choose
from kdsearch.workers.jobs import EpochEnded, Job, JobSucceeded, Resources, WorkerLost, WorkerReady
from kdsearch.workers.processes import Pause, ProcessExecutor
from tests.search.setups import ONE_THREAD, make_place

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture
def place(tiny, tmp_path):
    return make_place(tiny, tmp_path)


def _job(tiny, place, tmp_path, number, *, epochs=2):
    recipe = choose(
        tiny, lambda _, value: value.bounds[0] if isinstance(value, IntRange) else value.choice[1], seed=number
    )
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": epochs})})
    return Job(
        id=str(number),
        recipe=recipe,
        materials=place,
        checkpoint=str(tmp_path / f"{number}.checkpoint"),
        subject="this",
        checkpoint_every_s=0.0,
    )


def _until(executor, kind, *, seconds=60):
    events = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        events += executor.poll(0.5)
        if any(isinstance(event, kind) for event in events):
            return events
    pytest.fail(f"no {kind} within {seconds} s, but {events}")


def test_workers_make_students_die_and_are_replaced(tiny, place, tmp_path):
    executor = ProcessExecutor(ONE_THREAD, workers=1)
    try:
        executor.submit(_job(tiny, place, tmp_path, 0))
        assert executor.room() == 0
        events = _until(executor, JobSucceeded)
        assert [type(event) for event in events] == [WorkerReady, EpochEnded, EpochEnded, JobSucceeded]
        assert "head.weight" in load(events[-1].trained.weights)
        executor.submit(_job(tiny, place, tmp_path, 1, epochs=10_000))
        _until(executor, EpochEnded)
        os.kill(_children(executor)[0], signal.SIGKILL)
        events = _until(executor, WorkerLost)
        assert events[-1] == WorkerLost(job="1", reason="the worker process ended with signal 9")
        assert executor.room() == 1
        executor.submit(_job(tiny, place, tmp_path, 2))
        assert _until(executor, JobSucceeded)[-1].job == "2"
        children = _children(executor)
    finally:
        executor.close()
    assert not any(_alive(pid) for pid in children)


def test_workers_start_outside_of_the_main_thread_and_ignore_an_interrupt_from_their_first_moment():
    """As those of ``Study.run`` in a notebook's thread or a web server's."""
    ended = []

    def start():
        executor = ProcessExecutor(ONE_THREAD, workers=1)
        try:
            os.kill(_children(executor)[0], signal.SIGINT)
            while not executor._workers[0].ready:
                assert executor.poll(0.2) == []
        finally:
            executor.close()
        ended.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(timeout=120)
    assert len(ended) == 1, "it raised"
    assert signal.SIGINT not in ended[0]


def test_interrupt_does_not_reach_workers(tiny, place, tmp_path):
    executor = ProcessExecutor(ONE_THREAD, workers=1)
    try:
        executor.submit(_job(tiny, place, tmp_path, 0, epochs=3))
        _until(executor, EpochEnded)
        os.kill(_children(executor)[0], signal.SIGINT)
        assert _until(executor, JobSucceeded)[-1].job == "0"
    finally:
        executor.close()


def test_stopped_task_ends_after_its_epoch_and_leaves_no_checkpoint(tiny, place, tmp_path):
    executor = ProcessExecutor(ONE_THREAD, workers=1)
    try:
        executor.submit(_job(tiny, place, tmp_path, 0, epochs=10_000))
        _until(executor, EpochEnded)
        executor.stop("0", within_s=60)
        assert executor.room() == 0
        deadline = time.monotonic() + 60
        while not executor.room():
            assert executor.poll(0.2) == []
            assert time.monotonic() < deadline
        assert not list(tmp_path.glob("0.checkpoint*"))
        executor.submit(_job(tiny, place, tmp_path, 1))
        assert [type(event) for event in _until(executor, JobSucceeded)] == [
            WorkerReady,
            EpochEnded,
            EpochEnded,
            JobSucceeded,
        ]
        executor.stop("1", within_s=60)  # too late; the next job must not suffer
        executor.submit(_job(tiny, place, tmp_path, 2))
        assert _until(executor, JobSucceeded)[-1].job == "2"
    finally:
        executor.close()


def test_killed_and_silent_tasks_go_on_from_their_checkpoint_to_the_same_student(tiny, place, tmp_path):
    executor = ProcessExecutor(ONE_THREAD, workers=1)
    try:
        executor.submit(_job(tiny, place, tmp_path, 0, epochs=12))
        whole = _until(executor, JobSucceeded)
        (tmp_path / "0.checkpoint").unlink()
        executor.submit(_job(tiny, place, tmp_path, 0, epochs=12))
        _until(executor, EpochEnded)
        os.kill(_children(executor)[0], signal.SIGKILL)
        _until(executor, WorkerLost)
        executor.submit(_job(tiny, place, tmp_path, 0, epochs=12))
        _until(executor, EpochEnded)
        (child,) = _children(executor)
        os.kill(child, signal.SIGSTOP)
        executor.drop("0")
        assert executor.room() == 1
        executor.submit(_job(tiny, place, tmp_path, 0, epochs=12))
        again = _until(executor, JobSucceeded)
        assert again[-1].trained.weights == whole[-1].trained.weights
        assert again[-1].trained.scores.overlap == whole[-1].trained.scores.overlap
        dice = [[event.report.dice for event in events if isinstance(event, EpochEnded)] for events in (whole, again)]
        assert dice[0] == dice[1]
    finally:
        executor.close()


def test_worker_killed_while_it_starts_is_replaced(tiny, place, tmp_path):
    executor = ProcessExecutor(ONE_THREAD, workers=1)
    try:
        executor.submit(_job(tiny, place, tmp_path, 0))
        os.kill(_children(executor)[0], signal.SIGKILL)
        assert _until(executor, WorkerLost)[-1].job == "0"
        executor.submit(_job(tiny, place, tmp_path, 0))
        _until(executor, JobSucceeded)
    finally:
        executor.close()


def test_workers_end_when_their_driver_is_killed(tiny, place, tmp_path):
    program = (
        "import os, pickle, sys, time\n"
        "from kdsearch.workers.processes import ProcessExecutor\n"
        "from kdsearch.workers.jobs import EpochEnded\n"
        "if __name__ == '__main__':\n"
        "    resources, job = pickle.load(open(sys.argv[1], 'rb'))\n"
        "    executor = ProcessExecutor(resources, workers=1)\n"
        "    executor.submit(job)\n"
        "    while not executor.poll(1): pass\n"
        "    print(executor._workers[0].process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "setup.pickle").write_bytes(pickle.dumps((ONE_THREAD, _job(tiny, place, tmp_path, 0, epochs=10_000))))
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "setup.pickle")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        worker = int(driver.stdout.readline())
        driver.kill()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(worker):
        assert time.monotonic() < deadline, "the worker outlived its driver"
        time.sleep(0.1)


def test_worker_that_cannot_start_stops_the_study():
    executor = ProcessExecutor(Resources(device="nowhere", threads=1), workers=1)
    try:
        with pytest.raises(SearchError, match=r"a worker process could not start \(exit code 1\)"):
            _until(executor, JobSucceeded)
    finally:
        executor.close()


def test_worker_imports_neither_optuna_nor_mlflow():
    strangers = ("optuna", "mlflow", "timm")
    code = f"import sys, kdsearch.workers.processes; print([m for m in {strangers} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def _children(executor) -> list[int]:
    return [worker.process.pid for worker in executor._workers]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_rest_while_something_is_timed_and_go_on_afterwards(tiny, place, tmp_path):
    executor = ProcessExecutor(ONE_THREAD, workers=2)
    try:
        for number in range(2):
            executor.submit(_job(tiny, place, tmp_path, number, epochs=10_000))
        _until_both_progress(executor)
        assert max(_spent_while_quiet(executor)) < 0.2
        while executor.poll(0.1) == []:
            continue
        _until_both_progress(executor)
    finally:
        executor.close()


def test_a_worker_that_starts_up_is_waited_for_and_rests_too(tiny, place, tmp_path):
    executor = ProcessExecutor(ONE_THREAD, workers=2)
    try:
        for number in range(2):
            executor.submit(_job(tiny, place, tmp_path, number, epochs=10_000))
        assert max(_spent_while_quiet(executor)) < 0.2
        _until_both_progress(executor)
    finally:
        executor.close()


def test_worker_whose_driver_never_ends_the_rest_goes_on():
    pause = Pause(multiprocessing.get_context("spawn"), longest_s=0.2)
    pause.obey()
    try:
        began = time.monotonic()
        pause.ask(os.getpid())
        assert 0.1 < time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert not pause.is_paused


def _spent_while_quiet(executor):
    """Seconds of processor time that each worker took in a second of quiet."""
    processes = [psutil.Process(pid) for pid in _children(executor)]
    with executor.pause():
        before = [sum(process.cpu_times()[:2]) for process in processes]
        time.sleep(1.0)
        return [sum(process.cpu_times()[:2]) - start for process, start in zip(processes, before, strict=True)]


def _until_both_progress(executor):
    seen = set()
    while seen != {"0", "1"}:
        seen.add(_until(executor, EpochEnded)[-1].job)


def test_worker_that_hangs_after_it_was_told_to_stop_is_replaced(tiny, place, tmp_path):
    executor = ProcessExecutor(ONE_THREAD, workers=1)
    try:
        executor.submit(_job(tiny, place, tmp_path, 0, epochs=10_000))
        _until(executor, EpochEnded)
        (child,) = _children(executor)
        os.kill(child, signal.SIGSTOP)
        executor.stop("0", within_s=0.5)
        deadline = time.monotonic() + 30
        while not executor.room():
            assert all(event.job == "0" for event in executor.poll(0.2))
            assert time.monotonic() < deadline, "the slot is lost"
        assert not _alive(child)
        assert not list(tmp_path.glob("0.checkpoint*"))
        executor.submit(_job(tiny, place, tmp_path, 1))
        assert _until(executor, JobSucceeded)[-1].job == "1"
    finally:
        executor.close()
