"""Gets recipes from the sampler and sees that none over a hard limit goes further."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from functools import partial

import torch

from kdsearch.config.quantity import format_quantity
from kdsearch.config.search import Limits
from kdsearch.distill.student import Donor
from kdsearch.errors import SearchError
from kdsearch.export.onnx_graph import export_trained
from kdsearch.files.digests import digest
from kdsearch.files.home import weights_path
from kdsearch.models.costs import cost_of
from kdsearch.search.events import DriverEvent, Ended, Started
from kdsearch.search.pruners import cost_of_job, learning_curve_of
from kdsearch.search.session import Session, retry
from kdsearch.search.store import Proposal
from kdsearch.trials.recipe import Inherited, dump_recipe, from_anywhere
from kdsearch.trials.record import Student, job_of_trial, trial_of_job
from kdsearch.trials.scores import Cost
from kdsearch.workers.jobs import Job

CHECKPOINT_FORMAT = 6
"""Counts changes to what a checkpoint holds and to the order of a training, so that an older one is not resumed."""
MOST_REJECTIONS = 500
"""In a row; more than that and the limits leave next to nothing of the space."""


def recover(session: Session, abandoned: list[Proposal]) -> Iterator[DriverEvent]:
    """Queues what a former driver left running, and lets the pruner know what is already there."""
    for proposal in abandoned:
        if not (yield from _rejected(session, proposal)):
            session.jobs.waiting.append(_job(session, proposal))
    if not session.study.search.deterministic:
        _show_pruner(session, until=None)
    elif session.jobs.waiting:
        yield from _complete_batch(session)


def submit(session: Session) -> Iterator[DriverEvent]:
    """Gives the executor as much to do as it has room for."""
    deterministic, jobs = session.study.search.deterministic, session.jobs
    if deterministic and not jobs.open:
        yield from _complete_batch(session)
    while jobs.room():
        if not jobs.waiting and not deterministic:
            yield from _ask(session, min(1, session.unasked), donors=session.state.students)
        if not jobs.waiting:
            return
        job = jobs.start_next()
        cost = cost_of_job(job, size=session.study.data.size)
        yield Started(number=trial_of_job(job.id), recipe=job.student, cost=cost)


def is_done(session: Session) -> bool:
    """Whether nothing runs, waits or is still to be asked for; a worker that has not stopped yet is not waited for."""
    return not session.jobs.open and (session.exhausted or not session.unasked)


def over_limit(cost: Cost, limits: Limits) -> str:
    """Why the cost is over a hard limit; empty where it is not."""
    for name in ("params", "macs"):
        limit, value = getattr(limits, name), getattr(cost, name)
        if limit is not None and value > limit:
            return f"{format_quantity(value)} {name} are over the limit of {format_quantity(limit)}"
    return ""


def how_far_over(cost: Cost, limits: Limits) -> float:
    """The decimal logarithm of the largest excess over a limit on size; not above 0 where there is none."""
    pairs = ((cost.params, limits.params), (cost.macs, limits.macs))
    return max((math.log10(value / limit) for value, limit in pairs if limit is not None), default=0.0)


def _complete_batch(session: Session) -> Iterator[DriverEvent]:
    """Draws what the batch at hand lacks, a whole one between two; pruner and donors are of the batches before it.

    Batches begin at multiples of their size, also where a driver was killed in one or ``--trials`` cut one short.
    """
    batch = session.study.search.batch
    before = [record.number for record in session.state.records if record.outcome != "rejected"]
    waiting = [trial_of_job(job.id) for job in session.jobs.waiting]
    drawn = sorted([*before, *waiting])
    at_hand = drawn.index(waiting[0]) if waiting else len(drawn)
    start = at_hand // batch * batch
    until = drawn[start] if start < len(drawn) else None
    _show_pruner(session, until=until)
    missing = start + batch - len(drawn)
    donors = [student for student in session.state.students if until is None or student.number < until]
    yield from _ask(session, min(missing, session.unasked), donors=donors)


def _show_pruner(session: Session, *, until: int | None) -> None:
    """Shows the pruner the trials that ended, with numbers below ``until``."""
    for record in session.state.records:
        curve = learning_curve_of(record)
        if curve is not None and (until is None or record.number < until):
            session.pruner.observe(curve)


def _ask(session: Session, count: int, *, donors: Sequence[Student]) -> Iterator[DriverEvent]:
    """Queues that many more recipes within the limits, or as many as a grid still has."""
    for _ in range(count):
        proposal = None if session.exhausted else (yield from _ask_within_limits(session, donors))
        if proposal is None:
            session.exhausted = True
            return
        session.jobs.waiting.append(_job(session, proposal))


def _ask_within_limits(session: Session, donors: Sequence[Student]) -> Generator[DriverEvent, None, Proposal | None]:
    """The next recipe within the hard limits, None where a grid has no more; others are rejected on the way."""
    for _ in itertools.count() if session.study.search.sampler == "grid" else range(MOST_REJECTIONS):
        proposal = yield from retry(session, partial(session.store.ask, donors=donors))
        if proposal is None or not (yield from _rejected(session, proposal)):
            return proposal
    raise SearchError(
        f"search.limits: {MOST_REJECTIONS} recipes in a row were over them; widen them, or search smaller students"
    )


def _rejected(session: Session, proposal: Proposal) -> Generator[DriverEvent, None, bool]:
    cost = cost_of(proposal.recipe.student, size=session.study.data.size)
    reason = over_limit(cost, session.study.search.limits)
    if reason:
        violation = how_far_over(cost, session.study.search.limits)
        reject = partial(session.store.reject, proposal.number, reason, violation=violation)
        record = yield from retry(session, reject)
        session.state.end(record)
        yield Ended(record=record)
    return bool(reason)


def _job(session: Session, proposal: Proposal) -> Job:
    """Raises SearchError where it begins with weights that are not there."""
    recipe, job_id, unlabelled = proposal.recipe, job_of_trial(proposal.number), session.materials.unlabelled
    made_from = [session.materials.teacher.id, *([] if unlabelled is None else [unlabelled.fingerprint])]
    return Job(
        id=job_id,
        recipe=from_anywhere(recipe, getattr(session.study.student, "weights", "")),
        materials=session.materials.place(session.home),
        checkpoint=session.checkpoint_of(job_id),
        subject=digest(CHECKPOINT_FORMAT, torch.__version__, *made_from, dump_recipe(recipe)),
        checkpoint_every_s=session.study.search.checkpoint_every_s,
        macs=cost_of(recipe.student, size=session.study.data.size).macs,
        donor=None if recipe.start is None else _donor(session, recipe.start),
        export=partial(export_trained, size=session.study.data.size) if _is_timed(session) else None,
    )


def _is_timed(session: Session) -> bool:
    """Whether a student's latency is an objective."""
    return "latency_ms" in session.study.search.objectives


def _donor(session: Session, start: Inherited) -> Donor:
    """The student whose weights a trial begins with; raises SearchError where they cannot be read."""
    student = next(student for student in session.state.students if student.number == start.donor)
    path = weights_path(session.home, session.study.name, student.job)
    try:
        return Donor(student=student.recipe.student, weights=path.read_bytes())
    except OSError as error:
        raise SearchError(
            f"study {session.study.name} stops: a trial begins with the weights of trial {start.donor}, and {path} "
            f"cannot be read: {error.strerror or error}; restore it, or copy it from the machine that made it, and the "
            "same command resumes"
        ) from error
