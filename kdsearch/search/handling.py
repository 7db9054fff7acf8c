"""Handles what workers report: stops, finishes, requeues or fails their trials."""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Iterator
from functools import partial

from safetensors.torch import load

from kdsearch.distill.report import Trained
from kdsearch.errors import SearchError
from kdsearch.export.sizes import prepare_onnx
from kdsearch.files.home import weights_path
from kdsearch.files.whole import discard, write_whole
from kdsearch.models.students import build_student
from kdsearch.search.events import DriverEvent, Ended, Requeued, TrialCheckpointFailed, TrialProgressed
from kdsearch.search.retry import retry
from kdsearch.search.session import Session
from kdsearch.search.store import Proposal
from kdsearch.search.study_state import learning_curve_of
from kdsearch.trials.curve import EpochReport
from kdsearch.trials.record import TrialRecord, job_of_trial, trial_of_job
from kdsearch.trials.scores import Scores
from kdsearch.workers.jobs import Begun, CheckpointFailed, Event, Failed, Lost, MaterialsFailed, Progressed, Succeeded

logger = logging.getLogger(__name__)

HOPELESS = 3
"""Failures of one kind after which nothing more is tried."""


def handle_event(session: Session, event: Event) -> Iterator[DriverEvent]:
    """Handles one event of a running trial's job; raises SearchError where it makes no sense to continue."""
    number = trial_of_job(event.job)
    if not session.state.is_running(number):
        return
    match event:
        case Begun():
            session.watchdog.started(number, now=time.monotonic())
        case Progressed(report=report):
            yield TrialProgressed(number=number, report=report)
            yield from _judge(session, number, report)
        case Succeeded(trained=trained):
            yield from retry(session, partial(_keep_weights, session, number, trained))
            scores = _with_latency(session, number, trained)
            finish = partial(session.store.finish, number, scores, session.state.curve(number))
            yield from _end(session, (yield from retry(session, finish)))
        case Failed(reason=reason):
            if event.traceback:
                logger.error("trial %s failed:\n%s", number, event.traceback)
            fail = partial(session.store.fail, number, reason, session.state.curve(number), traceback=event.traceback)
            yield from _end(session, (yield from retry(session, fail)))
        case MaterialsFailed(reason=reason):
            logger.error("a worker could not open images or teacher:\n%s", event.traceback)
            raise SearchError(
                f"study {session.study.name} stops: a worker could not open its images or teacher: {reason}. What is "
                "finished is kept, and the same command resumes when the cause is fixed"
            )
        case Lost(reason=reason):
            yield from _lose(session, number, reason)
        case CheckpointFailed(reason=reason):
            yield TrialCheckpointFailed(number=number, reason=reason)


def drop_silent(session: Session) -> Iterator[DriverEvent]:
    """Ends workers that no longer report; their trials resume with others."""
    for number, seconds in session.watchdog.silent(now=time.monotonic()):
        session.executor.drop(job_of_trial(number))
        yield from _lose(session, number, f"its worker was silent for {seconds:.0f} seconds")


def _judge(session: Session, number: int, report: EpochReport) -> Iterator[DriverEvent]:
    """Takes an epoch into account and stops the trial where the pruner says so."""
    session.state.report(number, report)
    session.watchdog.heartbeat(number, report, now=time.monotonic())
    so_far = session.state.learning_curve(number)
    reason = session.pruner.stops(so_far)
    if not session.study.search.deterministic:
        session.pruner.observe(so_far)
    if not reason or report.epoch >= report.epochs:  # a student that is trained is worth more than no student
        return
    session.executor.stop(job_of_trial(number), within_s=session.watchdog.allowed(number))
    text = f"after epoch {report.epoch} of {report.epochs}, {reason}"
    curve, cost = session.state.curve(number), session.state.run_of(number).cost
    stop = partial(session.store.stop, number, text, curve=curve, cost=cost)
    yield from _end(session, (yield from retry(session, stop)))


def _lose(session: Session, number: int, reason: str) -> Iterator[DriverEvent]:
    """Requeues a trial that lost its worker, or gives it up after too many."""
    retries, recipe, curve = (
        session.study.search.retries,
        session.state.run_of(number).recipe,
        session.state.curve(number),
    )
    reasons = session.state.lose(number, reason)
    session.watchdog.end(number)
    yield from retry(session, partial(session.store.lose, number, reasons))
    if len(reasons) <= retries:
        session.waiting.appendleft(Proposal(number=number, recipe=recipe))
        yield Requeued(number=number, reason=reason, attempt=len(reasons), retries=retries)
        return
    text = f"{reason} (lost {len(reasons)} times)" if len(reasons) > 1 else reason
    yield from _end(session, (yield from retry(session, partial(session.store.fail, number, text, curve))))


def _end(session: Session, record: TrialRecord) -> Iterator[DriverEvent]:
    study = session.study
    session.state.end(record)
    session.watchdog.end(record.number)
    curve = learning_curve_of(record)
    if curve is not None and not study.search.deterministic:
        session.pruner.observe(curve)
    if record.outcome != "stopped":  # its worker is still in an epoch, and removes it itself
        discard(session.checkpoint_of(record.number))
    yield Ended(record=record)
    if record.outcome == "failed":
        _stop_where_hopeless(session, record)


def _with_latency(session: Session, number: int, trained: Trained) -> Scores:
    """The scores, with the latency where it is an objective: timed while every worker of this machine rests."""
    if "latency_ms" not in session.study.search.objectives:
        return trained.scores
    network = build_student(session.state.run_of(number).recipe.student)
    network.load_state_dict(load(trained.weights))
    prepared = prepare_onnx(network, size=session.study.data.size)
    with session.executor.pause():
        latency = prepared.time()
    if not latency.steady:
        logger.warning("trial %s: its latency had not settled after %s runs", number, latency.runs)
    return dataclasses.replace(trained.scores, latency_ms=latency.median_ms)


def _keep_weights(session: Session, number: int, trained: Trained) -> None:
    write_whole(str(weights_path(session.home, session.study.name, job_of_trial(number))), trained.weights)


def _stop_where_hopeless(session: Session, last: TrialRecord) -> None:
    """Raises SearchError where one recipe, or everything so far, failed in the same way three times."""
    records = [record for record in session.state.records if record.outcome != "rejected"]
    alike = [record for record in records if record.outcome == "failed" and _kind(record) == _kind(last)]
    same_recipe = [record for record in alike if _settings(record) == _settings(last)]
    nothing_else = len(alike) == len(records)
    if len(same_recipe) < HOPELESS and not (nothing_else and len(alike) >= HOPELESS):
        return
    numbers = ", ".join(str(record.number) for record in (alike if nothing_else else same_recipe))
    settings = last.recipe.settings() if last.recipe else {}
    recipe = ", ".join(f"{name} {value}" for name, value in settings.items() if "augmentation" not in name)
    raise SearchError(
        f"study {session.study.name} stops: trials {numbers} failed in the same way, the last because {last.reason}; "
        f"its recipe: {recipe}. Fix the cause, or give the space other bounds under another name; the same command "
        "resumes"
    )


def _kind(record: TrialRecord) -> str:
    """The reason without its numbers."""
    return re.sub(r"\d+", "#", record.reason)


def _settings(record: TrialRecord) -> dict[str, str]:
    return {name: value for name, value in record.recipe.settings().items() if name != "seed"} if record.recipe else {}
