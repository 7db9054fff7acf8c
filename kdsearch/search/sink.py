"""Where the results of a search's jobs go: Optuna's study, with weights and checkpoints beside it."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator
from functools import partial

from kdsearch.distill.result import Trained
from kdsearch.errors import ModelError, SearchError
from kdsearch.export.onnx_graph import prepare_onnx
from kdsearch.files.home import weights_path
from kdsearch.files.whole import discard, write_whole
from kdsearch.search.events import DriverEvent, Ended
from kdsearch.search.pruners import cost_of_job, curve_of_job, learning_curve_of
from kdsearch.search.session import Session, retry
from kdsearch.trials.record import EpochReport, TrialRecord, trial_of_job
from kdsearch.trials.scores import Scores
from kdsearch.workers.jobs import Job

logger = logging.getLogger(__name__)

HOPELESS = 3
"""Failures of one kind after which nothing more is tried."""


class TrialSink:
    """Keeps every trial's result, waiting where the storage does not take it, and asks the pruner after each epoch."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def epoch(self, job: Job, curve: tuple[EpochReport, ...], *, replayed: bool) -> str:
        """Why the pruner stops the trial; empty after its last epoch, which ends it anyway.

        A resumed trial is not judged again at epochs that it passed: the pruner knows more rivals by now. In a
        deterministic study it knows the same ones, and a driver that was killed may not have judged the last epoch.
        """
        pruner, so_far = self._session.pruner, curve_of_job(job, curve, size=self._session.study.data.size)
        deterministic = self._session.study.search.deterministic
        reason = "" if replayed and not deterministic else pruner.stops(so_far)
        if not deterministic:
            pruner.observe(so_far)
        return "" if curve[-1].epoch >= curve[-1].epochs else reason

    def stopped(self, job: Job, reason: str, curve: tuple[EpochReport, ...]) -> Iterator[DriverEvent]:
        """A stopped trial; its worker is still in an epoch, and removes the checkpoint itself."""
        text = f"after epoch {curve[-1].epoch} of {curve[-1].epochs}, {reason}"
        cost = cost_of_job(job, size=self._session.study.data.size)
        stop = partial(self._session.store.stop, trial_of_job(job.id), text, curve=curve, cost=cost)
        yield from self._end((yield from retry(self._session, stop)))

    def succeeded(self, job: Job, trained: Trained, curve: tuple[EpochReport, ...]) -> Iterator[DriverEvent]:
        """A finished trial, its weights first; a failed one if its latency is an objective and cannot be measured."""
        session = self._session
        try:
            scores = self._with_latency(job, trained)
        except ModelError as error:
            yield from self.failed(job, str(error), curve)
            return
        path = weights_path(session.home, session.study.name, job.id)
        yield from retry(session, partial(write_whole, str(path), trained.weights))
        finish = partial(session.store.finish, trial_of_job(job.id), scores, curve)
        record = yield from retry(session, finish)
        discard(job.checkpoint)
        yield from self._end(record)

    def failed(
        self, job: Job, reason: str, curve: tuple[EpochReport, ...], *, traceback: str = ""
    ) -> Iterator[DriverEvent]:
        """A failed trial; raises SearchError where it makes no sense to continue."""
        number = trial_of_job(job.id)
        if traceback:
            logger.error("trial %s failed:\n%s", number, traceback)
        fail = partial(self._session.store.fail, number, reason, curve, traceback=traceback)
        record = yield from retry(self._session, fail)
        discard(job.checkpoint)
        yield from self._end(record)
        _stop_where_hopeless(self._session, record)

    def lost(self, job: Job, reasons: tuple[str, ...]) -> Iterator[DriverEvent]:
        """How a trial's workers were lost, so that the next driver counts on."""
        yield from retry(self._session, partial(self._session.store.lose, trial_of_job(job.id), reasons))

    def _end(self, record: TrialRecord) -> Iterator[DriverEvent]:
        self._session.state.end(record)
        curve = learning_curve_of(record)
        if curve is not None and not self._session.study.search.deterministic:
            self._session.pruner.observe(curve)
        yield Ended(record=record)

    def _with_latency(self, job: Job, trained: Trained) -> Scores:
        """The scores, with the latency where it is an objective: timed while every worker of this machine pauses."""
        if "latency_ms" not in self._session.study.search.objectives:
            return trained.scores
        assert trained.onnx is not None, "its job exports it"
        prepared = prepare_onnx(trained.onnx)
        with self._session.jobs.executor.pause():
            latency = prepared.time()
        if not latency.steady:
            logger.warning("trial %s: its latency had not settled after %s runs", trial_of_job(job.id), latency.runs)
        return dataclasses.replace(trained.scores, latency_ms=latency.median_ms)


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
    """But for the seed, and for whose weights it began with."""
    found = record.recipe.cold.settings() if record.recipe else {}
    return {name: value for name, value in found.items() if name != "seed"}
