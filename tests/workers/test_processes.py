"""Worker processes: they import neither Optuna nor MLflow, and a dead one affects only its own trial."""

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

from kdsearch.config.ranges import IntRange
from kdsearch.errors import SearchError
from kdsearch.search.recipes import choose
from kdsearch.workers.jobs import EpochEnded, Job, JobSucceeded, Resources, WorkerLost
from kdsearch.workers.processes import Pause, ProcessExecutor
from tests.search.setups import ONE_THREAD, create_parent, until, until_room


@pytest.fixture(scope="module")
def executor():
    """An executor with one worker, which has no job between tests."""
    made = ProcessExecutor(ONE_THREAD, workers=1)
    (child,) = _children()
    yield made
    last = _children()
    made.close()
    assert child not in last, "some test killed it"
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in last)


@pytest.fixture
def job(tiny, tiny_home, tmp_path):
    place = create_parent(tiny, tiny_home)

    def make(number, *, epochs=2):
        recipe = choose(
            tiny, lambda _, value: value.bounds[0] if isinstance(value, IntRange) else value.choice[1], seed=number
        )
        training = recipe.training.model_copy(update={"epochs": epochs})
        return Job(
            id=str(number),
            recipe=recipe.model_copy(update={"training": training}),
            materials=place,
            checkpoint=str(tmp_path / f"{number}.checkpoint"),
            subject="this",
            checkpoint_every_s=0.0,
        )

    return make


def _children() -> set[int]:
    """This process's workers."""
    return {child.pid for child in multiprocessing.active_children()}


def test_workers_ignore_interrupts(executor, job):
    executor.submit(job(0, epochs=3))
    until(executor, EpochEnded)
    (child,) = _children()
    os.kill(child, signal.SIGINT)
    assert until(executor, JobSucceeded)[-1].job == "0"
    assert _children() == {child}


@pytest.mark.slow
def test_killed_and_hung_jobs_resume_to_the_same_student(executor, job, tmp_path):
    executor.submit(job(0, epochs=12))
    whole = until(executor, JobSucceeded)
    (tmp_path / "0.checkpoint").unlink()
    executor.submit(job(0, epochs=12))
    until(executor, EpochEnded)
    os.kill(*_children(), signal.SIGKILL)
    assert until(executor, WorkerLost)[-1] == WorkerLost(job="0", reason="the worker process ended with signal 9")
    assert executor.room() == 1
    executor.submit(job(0, epochs=12))
    until(executor, EpochEnded)
    os.kill(*_children(), signal.SIGSTOP)
    executor.drop("0")
    assert executor.room() == 1
    executor.submit(job(0, epochs=12))
    again = until(executor, JobSucceeded)
    assert again[-1].trained.weights == whole[-1].trained.weights
    assert again[-1].trained.scores.overlap == whole[-1].trained.scores.overlap
    dice = [[event.report.dice for event in events if isinstance(event, EpochEnded)] for events in (whole, again)]
    assert dice[0] == dice[1]


def test_worker_killed_while_it_starts_is_replaced(executor, job):
    executor.submit(job(0, epochs=10_000))
    executor.drop("0")  # so that another starts
    executor.submit(job(1))
    os.kill(*_children(), signal.SIGKILL)
    assert until(executor, WorkerLost)[-1].job == "1"
    executor.submit(job(1))
    assert until(executor, JobSucceeded)[-1].job == "1"


def test_worker_that_hangs_when_stopped_is_replaced(executor, job, tmp_path):
    executor.submit(job(0, epochs=10_000))
    until(executor, EpochEnded)
    (child,) = _children()
    os.kill(child, signal.SIGSTOP)
    executor.stop("0", within_s=0.5)
    assert {event.job for event in until_room(executor, seconds=30)} <= {"0"}
    assert child not in _children()
    assert not list(tmp_path.glob("0.checkpoint*"))
    executor.submit(job(1))
    assert until(executor, JobSucceeded)[-1].job == "1"


def test_workers_start_outside_the_main_thread_and_ignore_early_interrupts(executor):
    """As with ``Study.run`` in a thread of a notebook or a web server."""
    assert executor.room() == 1
    others, ended = _children(), []

    def start():
        executor = ProcessExecutor(ONE_THREAD, workers=1)
        (child,) = _children() - others
        try:
            os.kill(child, signal.SIGINT)
            with executor.pause():  # waits until the worker has started
                assert executor.poll(0.0) == []
            assert child in _children()
        finally:
            executor.close()
        ended.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(timeout=120)
    assert len(ended) == 1, "it raised"
    assert signal.SIGINT not in ended[0]


def test_workers_end_when_their_driver_is_killed(job, tmp_path):
    program = (
        "import multiprocessing, pickle, sys, time\n"
        "from kdsearch.workers.processes import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        "    resources, job = pickle.load(open(sys.argv[1], 'rb'))\n"
        "    executor = ProcessExecutor(resources, workers=1)\n"
        "    executor.submit(job)\n"
        "    while not executor.poll(1): pass\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "setup.pickle").write_bytes(pickle.dumps((ONE_THREAD, job(0, epochs=10_000))))
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
            until(executor, JobSucceeded)
    finally:
        executor.close()


def test_worker_imports_neither_optuna_nor_mlflow():
    strangers = ("optuna", "mlflow", "timm")
    code = f"import sys, kdsearch.workers.processes; print([m for m in {strangers} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_workers_pause_during_timing_even_while_starting_and_then_resume(job):
    others = _children()
    executor = ProcessExecutor(ONE_THREAD, workers=2)
    try:
        for number in range(2):
            executor.submit(job(number, epochs=10_000))
        for _ in ("while they start up", "while they train"):
            assert max(_spent_while_quiet(executor, _children() - others)) < 0.2
            while executor.poll(0.1) == []:
                continue
            _until_both_progress(executor)
    finally:
        executor.close()


def _spent_while_quiet(executor, workers):
    """Seconds of processor time that each worker used in a pause of one second."""
    processes = [psutil.Process(pid) for pid in workers]
    with executor.pause():
        before = [sum(process.cpu_times()[:2]) for process in processes]
        time.sleep(1.0)
        return [sum(process.cpu_times()[:2]) - start for process, start in zip(processes, before, strict=True)]


def _until_both_progress(executor):
    seen = set()
    while seen != {"0", "1"}:
        seen.add(until(executor, EpochEnded)[-1].job)


def test_worker_resumes_if_the_driver_never_ends_the_pause():
    pause = Pause(multiprocessing.get_context("spawn"), longest_s=0.2)
    pause.obey()
    try:
        began = time.monotonic()
        pause.ask(os.getpid())
        assert 0.1 < time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert not pause.is_paused
