"""The trials of a search: turns recipes from the sampler into jobs and stores their results with Optuna."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

from kdsearch.campaign.driver import Campaign
from kdsearch.campaign.events import Resumed, TrialEnded, Waiting
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Trained
from kdsearch.distill.student import Donor
from kdsearch.errors import ModelError, SearchError
from kdsearch.export.onnx_graph import export_trained, prepare_onnx
from kdsearch.files.atomic import atomic_write, discard
from kdsearch.files.home import weights_path
from kdsearch.models.costs import cost_of, how_far_over, over_limit
from kdsearch.search.optuna_study import Bound
from kdsearch.search.pruners import Pruner, curve_of_job, learning_curve_of
from kdsearch.search.store import Proposal, StudyStore
from kdsearch.trials.recipe import Inherited
from kdsearch.trials.record import EpochReport, Student, TrialRecord, job_of_trial, students_of, trial_of_job
from kdsearch.trials.scores import Scores
from kdsearch.workers.jobs import Job

logger = logging.getLogger(__name__)

MOST_REJECTIONS = 500
"""After this many rejections in a row, the limits exclude nearly the whole space."""
HOPELESS = 3
"""The study stops after this many failures of one kind."""

TrialEvent: TypeAlias = TrialEnded | Waiting | Resumed


class StudyState:
    """The Optuna database's content in memory; not read again, because the database may become unreachable."""

    def __init__(self, records: Iterable[TrialRecord], *, target: int, bound: Bound) -> None:
        """``target`` is the requested number of trials, without rejected ones."""
        self.bound = bound
        self._ended = {record.number: record for record in records if record.outcome != "running"}
        self._target = target

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """Ended trials by number."""
        return tuple(self._ended[number] for number in sorted(self._ended))

    @property
    def students(self) -> tuple[Student, ...]:
        """Finished trials by number."""
        return students_of(self.records)

    @property
    def remaining(self) -> int:
        """Number of trials that have not ended, including those not yet drawn."""
        return max(0, self._target - sum(record.outcome != "rejected" for record in self._ended.values()))

    def end(self, record: TrialRecord) -> None:
        self._ended[record.number] = record


class Trials:
    """The source of a search's jobs.

    Every write waits while the Optuna database is unreachable. The pruner decides after each epoch.
    """

    def __init__(
        self, campaign: Campaign, *, store: StudyStore, state: StudyState, materials: Materials, pruner: Pruner
    ) -> None:
        """``state`` is the Optuna database's content; ``materials`` are the images with their teacher."""
        self._campaign, self._study = campaign, campaign.study
        self._store, self.state, self.materials, self._pruner = store, state, materials, pruner
        self._drawn: deque[Job] = deque()
        self._exhausted = False  # true once a grid has no more recipes

    @property
    def stopping(self) -> Trials:
        """The object itself, because its pruner stops trials."""
        return self

    @property
    def losses(self) -> Trials:
        """The object itself, because lost workers are counted across drivers."""
        return self

    @property
    def is_done(self) -> bool:
        return not self._drawn and (self._exhausted or not self._unasked)

    def recover(self, abandoned: Sequence[Proposal]) -> Iterator[TrialEvent]:
        """Queues trials that an earlier driver left running, and shows the pruner the ended ones."""
        for proposal in abandoned:
            if not (yield from self._rejected(proposal)):
                self._drawn.append(self._job(proposal))
        if not self._study.search.deterministic:
            self._show_pruner(until=None)
        elif self._drawn:
            yield from self._complete_batch()

    def next_job(self) -> Generator[TrialEvent, None, Job | None]:
        """The next trial; a deterministic study draws a whole batch when no job runs."""
        if not self._drawn:
            if not self._study.search.deterministic:
                yield from self._ask(min(1, self._unasked), donors=self.state.students)
            elif not self._campaign.jobs.open:
                yield from self._complete_batch()
        return self._drawn.popleft() if self._drawn else None

    def epoch(self, job: Job, curve: tuple[EpochReport, ...], *, replayed: bool) -> str:
        """Why the pruner stops the trial; empty after the last epoch.

        Replayed epochs are not judged again, because the pruner knows more rivals than before. In a deterministic study
        it knows the same ones, and they are judged, because a killed driver may not have judged the last epoch.
        """
        so_far, deterministic = curve_of_job(job, curve), self._study.search.deterministic
        reason = "" if replayed and not deterministic else self._pruner.stops(so_far)
        if not deterministic:
            self._pruner.observe(so_far)
        return "" if curve[-1].epoch >= curve[-1].epochs else reason

    def stopped(self, job: Job, reason: str, curve: tuple[EpochReport, ...]) -> Iterator[TrialEvent]:
        """Stores a stopped trial; its worker finishes its epoch and removes the checkpoint itself."""
        text = f"after epoch {curve[-1].epoch} of {curve[-1].epochs}, {reason}"
        assert job.cost is not None, "the cost of a student is known"
        stop = partial(self._store.stop, trial_of_job(job.id), text, curve=curve, cost=job.cost)
        yield from self._end((yield from self._campaign.write(stop)))

    def succeeded(self, job: Job, trained: Trained, curve: tuple[EpochReport, ...]) -> Iterator[TrialEvent]:
        """Stores a finished trial, weights first; it fails if its latency is an objective and cannot be measured."""
        try:
            scores = self._with_latency(job, trained)
        except ModelError as error:
            yield from self.failed(job, str(error), curve)
            return
        path = weights_path(self._campaign.home, self._study.name, job.id)
        yield from self._campaign.write(partial(atomic_write, str(path), trained.weights))
        record = yield from self._campaign.write(partial(self._store.finish, trial_of_job(job.id), scores, curve))
        discard(job.checkpoint)
        yield from self._end(record)

    def failed(
        self, job: Job, reason: str, curve: tuple[EpochReport, ...], *, traceback: str = ""
    ) -> Iterator[TrialEvent]:
        """Stores a failed trial; raises SearchError if further trials would fail in the same way."""
        number = trial_of_job(job.id)
        if traceback:
            logger.error("trial %s failed:\n%s", number, traceback)
        record = yield from self._campaign.write(partial(self._store.fail, number, reason, curve, traceback=traceback))
        discard(job.checkpoint)
        yield from self._end(record)
        _stop_if_hopeless(self._study.name, self.state.records, record)

    def lost(self, job: Job, reasons: tuple[str, ...]) -> Iterator[TrialEvent]:
        """Stores why a trial lost its workers, so that the next driver continues the count."""
        yield from self._campaign.write(partial(self._store.lose, trial_of_job(job.id), reasons))

    @property
    def _unasked(self) -> int:
        """Number of trials that are still to be drawn."""
        return max(0, self.state.remaining - self._campaign.jobs.open - len(self._drawn))

    def _complete_batch(self) -> Iterator[TrialEvent]:
        """Completes the current batch or draws a new one; pruner and donors use only earlier batches.

        Batches start at multiples of their size, even after a killed driver or a batch cut short by ``--trials``.
        """
        batch = self._study.search.ask_batch
        before = [record.number for record in self.state.records if record.outcome != "rejected"]
        waiting = [trial_of_job(job.id) for job in self._drawn]
        drawn = sorted([*before, *waiting])
        at_hand = drawn.index(waiting[0]) if waiting else len(drawn)
        start = at_hand // batch * batch
        until = drawn[start] if start < len(drawn) else None
        self._show_pruner(until=until)
        missing = start + batch - len(drawn)
        donors = [student for student in self.state.students if until is None or student.number < until]
        yield from self._ask(min(missing, self._unasked), donors=donors)

    def _show_pruner(self, *, until: int | None) -> None:
        """Shows the pruner the ended trials with numbers below ``until``."""
        for record in self.state.records:
            curve = learning_curve_of(record)
            if curve is not None and (until is None or record.number < until):
                self._pruner.observe(curve)

    def _ask(self, count: int, *, donors: Sequence[Student]) -> Iterator[TrialEvent]:
        """Queues up to ``count`` recipes within the limits; a grid may have fewer."""
        for _ in range(count):
            proposal = None if self._exhausted else (yield from self._ask_within_limits(donors))
            if proposal is None:
                self._exhausted = True
                return
            self._drawn.append(self._job(proposal))

    def _ask_within_limits(self, donors: Sequence[Student]) -> Generator[TrialEvent, None, Proposal | None]:
        """Rejects recipes until one is within the limits; None if a grid has no more."""
        for _ in itertools.count() if self._study.search.sampler == "grid" else range(MOST_REJECTIONS):
            proposal = yield from self._campaign.write(partial(self._store.ask, donors=donors))
            if proposal is None or not (yield from self._rejected(proposal)):
                return proposal
        raise SearchError(
            f"search.limits: {MOST_REJECTIONS} recipes in a row exceeded them; raise them, or search smaller students"
        )

    def _rejected(self, proposal: Proposal) -> Generator[TrialEvent, None, bool]:
        limits = self._study.search.limits
        cost = cost_of(proposal.recipe.student, self._study.data.task)
        reason = over_limit(cost, limits)
        if reason:
            violation = how_far_over(cost, limits)
            reject = partial(self._store.reject, proposal.number, reason, violation=violation)
            record = yield from self._campaign.write(reject)
            self.state.end(record)
            yield TrialEnded(record=record)
        return bool(reason)

    def _job(self, proposal: Proposal) -> Job:
        """Creates the trial's job; raises SearchError if it inherits weights that do not exist."""
        recipe, unlabelled = proposal.recipe, self.materials.unlabelled
        return self._campaign.student_job(
            job_of_trial(proposal.number),
            recipe,
            self.materials,
            made_from=(self.materials.teacher.id, *([] if unlabelled is None else [unlabelled.fingerprint])),
            donor=None if recipe.start is None else self._donor(recipe.start),
            export=partial(export_trained, task=self._study.data.task) if self._is_timed else None,
        )

    def _donor(self, start: Inherited) -> Donor:
        """Reads the student whose weights a trial inherits; raises SearchError if they cannot be read."""
        student = next(student for student in self.state.students if student.number == start.donor)
        path = weights_path(self._campaign.home, self._study.name, student.job)
        try:
            return Donor(student=student.recipe.student, weights=path.read_bytes())
        except OSError as error:
            raise SearchError(
                f"study {self._study.name} stops: a trial inherits the weights of trial {start.donor}, but {path} "
                f"cannot be read: {error.strerror or error}; restore it, or copy it from the machine that trained it, "
                "and run the same command to resume"
            ) from error

    @property
    def _is_timed(self) -> bool:
        return "latency_ms" in self._study.search.objectives

    def _with_latency(self, job: Job, trained: Trained) -> Scores:
        """Adds the latency to the scores if it is an objective; pauses all workers of this machine to measure it."""
        if not self._is_timed:
            return trained.scores
        assert trained.onnx is not None, "its job exports the student"
        prepared = prepare_onnx(trained.onnx)
        with self._campaign.jobs.executor.pause():
            latency = prepared.time()
        if not latency.steady:
            logger.warning("trial %s: its latency was still unsteady after %s runs", trial_of_job(job.id), latency.runs)
        return dataclasses.replace(trained.scores, latency_ms=latency.median_ms)

    def _end(self, record: TrialRecord) -> Iterator[TrialEvent]:
        self.state.end(record)
        curve = learning_curve_of(record)
        if curve is not None and not self._study.search.deterministic:
            self._pruner.observe(curve)
        yield TrialEnded(record=record)


def _stop_if_hopeless(study: str, ended: Sequence[TrialRecord], last: TrialRecord) -> None:
    """Raises SearchError if one recipe, or every trial so far, failed in the same way three times."""
    records = [record for record in ended if record.outcome != "rejected"]
    alike = [record for record in records if record.outcome == "failed" and _kind(record) == _kind(last)]
    same_recipe = [record for record in alike if _settings(record) == _settings(last)]
    nothing_else = len(alike) == len(records)
    if len(same_recipe) < HOPELESS and not (nothing_else and len(alike) >= HOPELESS):
        return
    numbers = ", ".join(str(record.number) for record in (alike if nothing_else else same_recipe))
    settings = last.recipe.settings() if last.recipe else {}
    recipe = ", ".join(f"{name} {value}" for name, value in settings.items() if "augmentation" not in name)
    raise SearchError(
        f"study {study} stops: trials {numbers} failed in the same way; last reason: {last.reason}; last recipe: "
        f"{recipe}. Fix the cause and run the same command to resume, or change the search space and the study's name"
    )


def _kind(record: TrialRecord) -> str:
    """The reason without its numbers."""
    return re.sub(r"\d+", "#", record.reason)


def _settings(record: TrialRecord) -> dict[str, str]:
    """All settings except the seed and the inherited weights."""
    found = record.recipe.from_scratch.settings() if record.recipe else {}
    return {name: value for name, value in found.items() if name != "seed"}
