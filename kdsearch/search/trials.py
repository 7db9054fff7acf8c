"""The trials of a search: recipes from the sampler become jobs, and results go to Optuna's study."""

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
from kdsearch.files.home import weights_path
from kdsearch.files.whole import discard, write_whole
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
"""In a row; more than that and the limits leave next to nothing of the space."""
HOPELESS = 3
"""Failures of one kind after which nothing more is tried."""

TrialEvent: TypeAlias = TrialEnded | Waiting | Resumed


class StudyState:
    """What the storage holds, kept in memory: it is not read again, so that it may be away for a while."""

    def __init__(self, records: Iterable[TrialRecord], *, target: int, bound: Bound) -> None:
        """``target`` is how many trials there are to be, rejected ones not counted."""
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
        """Trials that have not ended, asked for or not."""
        return max(0, self._target - sum(record.outcome != "rejected" for record in self._ended.values()))

    def end(self, record: TrialRecord) -> None:
        """A trial ended."""
        self._ended[record.number] = record


class Trials:
    """The trials that a search still has to make: what its campaign trains.

    Every write waits if the storage is away. The pruner is asked after each epoch.
    """

    def __init__(
        self, campaign: Campaign, *, store: StudyStore, state: StudyState, materials: Materials, pruner: Pruner
    ) -> None:
        """``state`` is what the storage holds; ``materials`` are the images with their teacher."""
        self._campaign, self._study = campaign, campaign.study
        self._store, self.state, self.materials, self._pruner = store, state, materials, pruner
        self._drawn: deque[Job] = deque()
        self._exhausted = False  # whether a grid has no more recipes

    @property
    def stopping(self) -> Trials:
        """The pruner stops trials."""
        return self

    @property
    def losses(self) -> Trials:
        """A trial's lost workers are counted across drivers."""
        return self

    @property
    def is_done(self) -> bool:
        """Whether nothing is drawn or still to be asked for."""
        return not self._drawn and (self._exhausted or not self._unasked)

    def recover(self, abandoned: Sequence[Proposal]) -> Iterator[TrialEvent]:
        """Queues what a former driver left running, and shows the pruner the trials that ended."""
        for proposal in abandoned:
            if not (yield from self._rejected(proposal)):
                self._drawn.append(self._job(proposal))
        if not self._study.search.deterministic:
            self._show_pruner(until=None)
        elif self._drawn:
            yield from self._complete_batch()

    def next_job(self) -> Generator[TrialEvent, None, Job | None]:
        """The next trial; a deterministic study asks for a batch once nothing runs."""
        if not self._drawn:
            if not self._study.search.deterministic:
                yield from self._ask(min(1, self._unasked), donors=self.state.students)
            elif not self._campaign.jobs.open:
                yield from self._complete_batch()
        return self._drawn.popleft() if self._drawn else None

    def epoch(self, job: Job, curve: tuple[EpochReport, ...], *, replayed: bool) -> str:
        """Why the pruner stops the trial; empty after its last epoch, which ends it anyway.

        A resumed trial is not judged again at epochs that it passed: the pruner knows more rivals by now. In a
        deterministic study it knows the same ones, and a driver that was killed may not have judged the last epoch.
        """
        so_far, deterministic = curve_of_job(job, curve), self._study.search.deterministic
        reason = "" if replayed and not deterministic else self._pruner.stops(so_far)
        if not deterministic:
            self._pruner.observe(so_far)
        return "" if curve[-1].epoch >= curve[-1].epochs else reason

    def stopped(self, job: Job, reason: str, curve: tuple[EpochReport, ...]) -> Iterator[TrialEvent]:
        """A stopped trial; its worker is still in an epoch, and removes the checkpoint itself."""
        text = f"after epoch {curve[-1].epoch} of {curve[-1].epochs}, {reason}"
        assert job.cost is not None, "a student's is known"
        stop = partial(self._store.stop, trial_of_job(job.id), text, curve=curve, cost=job.cost)
        yield from self._end((yield from self._campaign.write(stop)))

    def succeeded(self, job: Job, trained: Trained, curve: tuple[EpochReport, ...]) -> Iterator[TrialEvent]:
        """A finished trial, its weights first; a failed one if its latency is an objective and cannot be measured."""
        try:
            scores = self._with_latency(job, trained)
        except ModelError as error:
            yield from self.failed(job, str(error), curve)
            return
        path = weights_path(self._campaign.home, self._study.name, job.id)
        yield from self._campaign.write(partial(write_whole, str(path), trained.weights))
        record = yield from self._campaign.write(partial(self._store.finish, trial_of_job(job.id), scores, curve))
        discard(job.checkpoint)
        yield from self._end(record)

    def failed(
        self, job: Job, reason: str, curve: tuple[EpochReport, ...], *, traceback: str = ""
    ) -> Iterator[TrialEvent]:
        """A failed trial; raises SearchError if it makes no sense to continue."""
        number = trial_of_job(job.id)
        if traceback:
            logger.error("trial %s failed:\n%s", number, traceback)
        record = yield from self._campaign.write(partial(self._store.fail, number, reason, curve, traceback=traceback))
        discard(job.checkpoint)
        yield from self._end(record)
        _stop_if_hopeless(self._study.name, self.state.records, record)

    def lost(self, job: Job, reasons: tuple[str, ...]) -> Iterator[TrialEvent]:
        """How a trial's workers were lost, so that the next driver continues the count."""
        yield from self._campaign.write(partial(self._store.lose, trial_of_job(job.id), reasons))

    @property
    def _unasked(self) -> int:
        """Trials whose recipe is still to be asked for."""
        return max(0, self.state.remaining - self._campaign.jobs.open - len(self._drawn))

    def _complete_batch(self) -> Iterator[TrialEvent]:
        """Draws what the current batch lacks, or a whole new one; pruner and donors know only earlier batches.

        Batches begin at multiples of their size, also if a driver was killed in one or ``--trials`` cut one short.
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
        """Shows the pruner the trials that ended, with numbers below ``until``."""
        for record in self.state.records:
            curve = learning_curve_of(record)
            if curve is not None and (until is None or record.number < until):
                self._pruner.observe(curve)

    def _ask(self, count: int, *, donors: Sequence[Student]) -> Iterator[TrialEvent]:
        """Queues that many more recipes within the limits, or as many as a grid still has."""
        for _ in range(count):
            proposal = None if self._exhausted else (yield from self._ask_within_limits(donors))
            if proposal is None:
                self._exhausted = True
                return
            self._drawn.append(self._job(proposal))

    def _ask_within_limits(self, donors: Sequence[Student]) -> Generator[TrialEvent, None, Proposal | None]:
        """The next recipe within the hard limits, None if a grid has no more; others are rejected on the way."""
        for _ in itertools.count() if self._study.search.sampler == "grid" else range(MOST_REJECTIONS):
            proposal = yield from self._campaign.write(partial(self._store.ask, donors=donors))
            if proposal is None or not (yield from self._rejected(proposal)):
                return proposal
        raise SearchError(
            f"search.limits: {MOST_REJECTIONS} recipes in a row were over them; widen them, or search smaller students"
        )

    def _rejected(self, proposal: Proposal) -> Generator[TrialEvent, None, bool]:
        limits = self._study.search.limits
        cost = cost_of(proposal.recipe.student, size=self._study.data.size)
        reason = over_limit(cost, limits)
        if reason:
            violation = how_far_over(cost, limits)
            reject = partial(self._store.reject, proposal.number, reason, violation=violation)
            record = yield from self._campaign.write(reject)
            self.state.end(record)
            yield TrialEnded(record=record)
        return bool(reason)

    def _job(self, proposal: Proposal) -> Job:
        """Raises SearchError if it begins with weights that do not exist."""
        recipe, unlabelled = proposal.recipe, self.materials.unlabelled
        return self._campaign.student_job(
            job_of_trial(proposal.number),
            recipe,
            self.materials,
            made_from=(self.materials.teacher.id, *([] if unlabelled is None else [unlabelled.fingerprint])),
            donor=None if recipe.start is None else self._donor(recipe.start),
            export=partial(export_trained, size=self._study.data.size) if self._is_timed else None,
        )

    def _donor(self, start: Inherited) -> Donor:
        """The student whose weights a trial begins with; raises SearchError if they cannot be read."""
        student = next(student for student in self.state.students if student.number == start.donor)
        path = weights_path(self._campaign.home, self._study.name, student.job)
        try:
            return Donor(student=student.recipe.student, weights=path.read_bytes())
        except OSError as error:
            raise SearchError(
                f"study {self._study.name} stops: a trial begins with the weights of trial {start.donor}, and {path} "
                f"cannot be read: {error.strerror or error}; restore it, or copy it from the machine that made it, and "
                "the same command resumes"
            ) from error

    @property
    def _is_timed(self) -> bool:
        return "latency_ms" in self._study.search.objectives

    def _with_latency(self, job: Job, trained: Trained) -> Scores:
        """The scores, with the latency if it is an objective: timed while every worker of this machine pauses."""
        if not self._is_timed:
            return trained.scores
        assert trained.onnx is not None, "its job exports it"
        prepared = prepare_onnx(trained.onnx)
        with self._campaign.jobs.executor.pause():
            latency = prepared.time()
        if not latency.steady:
            logger.warning("trial %s: its latency had not settled after %s runs", trial_of_job(job.id), latency.runs)
        return dataclasses.replace(trained.scores, latency_ms=latency.median_ms)

    def _end(self, record: TrialRecord) -> Iterator[TrialEvent]:
        self.state.end(record)
        curve = learning_curve_of(record)
        if curve is not None and not self._study.search.deterministic:
            self._pruner.observe(curve)
        yield TrialEnded(record=record)


def _stop_if_hopeless(study: str, ended: Sequence[TrialRecord], last: TrialRecord) -> None:
    """Raises SearchError if one recipe, or everything so far, failed in the same way three times."""
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
        f"study {study} stops: trials {numbers} failed in the same way, the last because {last.reason}; "
        f"its recipe: {recipe}. Fix the cause, or give the space other bounds under another name; the same command "
        "resumes"
    )


def _kind(record: TrialRecord) -> str:
    """The reason without its numbers."""
    return re.sub(r"\d+", "#", record.reason)


def _settings(record: TrialRecord) -> dict[str, str]:
    """But for the seed, and for whose weights it began with."""
    found = record.recipe.from_scratch.settings() if record.recipe else {}
    return {name: value for name, value in found.items() if name != "seed"}
