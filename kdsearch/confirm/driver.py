"""Carries a sealed plan out, or resumes it: the same executors, checkpoints and retries as a search."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import torch

from kdsearch.config.study import StudyConfig
from kdsearch.confirm.answers import answers_of
from kdsearch.confirm.events import ConfirmEvent, Dropped, Scored, Sealed
from kdsearch.confirm.plan import Repeat
from kdsearch.confirm.preparation import Prepared, prepare, prepare_test, teacher_of_fold
from kdsearch.confirm.scoring import FoldScorer, overtaken, twins_without_member
from kdsearch.confirm.store import TEACHER, ConfirmStore, FoldResult, open_confirmation, seal, sealed_plans
from kdsearch.data.native import native_masks
from kdsearch.distill.batches import choose_device
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Trained
from kdsearch.errors import SearchError
from kdsearch.files.digests import digest
from kdsearch.files.home import checkpoint_folder, storage_url, weights_path
from kdsearch.files.whole import discard, write_whole
from kdsearch.search.events import DriverEvent, Reading
from kdsearch.search.lease import Lease
from kdsearch.search.preparation import start_executor
from kdsearch.search.session import retry
from kdsearch.search.store import StudyStore, open_store
from kdsearch.search.submission import CHECKPOINT_FORMAT
from kdsearch.search.teachers import add_teachers
from kdsearch.statistics.confirmation import Confirmation
from kdsearch.trials.recipe import Recipe, dump_recipe, from_anywhere
from kdsearch.trials.record import EpochReport, describe_job
from kdsearch.workers.dispatcher import Dispatcher, Watchdog
from kdsearch.workers.jobs import Job
from kdsearch.workers.ray_cluster import require_ray

THREADS = 1
"""Of each training, so that the CPU gives the same numbers with any number of workers."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True, kw_only=True)
class ConfirmSession:
    """One driver's parts."""

    study: StudyConfig
    home: Path
    lease: Lease
    jobs: Dispatcher
    store: ConfirmStore
    search_id: str
    prepared: Prepared
    scorer: FoldScorer
    results: dict[tuple[str, int, int], FoldResult]
    dropped: dict[str, str]

    def checkpoint_of(self, job_id: str) -> str:
        """Where a job's state lies while it runs."""
        configured = self.study.search.checkpoints
        return (
            f"{checkpoint_folder(self.home, self.study.name, configured, study_id=self.search_id)}/{job_id}.checkpoint"
        )

    def keep(self, result: FoldResult) -> Iterator[Scored]:
        """Counts it among the results, and tells."""
        self.results[result.arm, result.repetition, result.fold] = result
        yield Scored(result=result)


def confirm_study(
    study: StudyConfig, *, home: Path, anew: bool = False
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Seals the study's plan, or resumes the one that is sealed, until it is carried out; returns the answers.

    ``anew`` seals another plan beside the old, which stays and is counted. Closing the generator, or an interrupt, ends
    the workers; what was running resumes from its checkpoint. Raises KdsearchError where it cannot start or continue.
    """
    url = storage_url(home, study.name, study.storage)
    require_ray(study.search)
    search = open_store(study, home, create=False)
    with Lease(url, study.name) as lease:
        yield Reading()
        prepared, store = _sealed(study, home, search, url=url, anew=anew)
        return (yield from _to_the_end(study, home, prepared, store, lease=lease, search_id=search.id))


def score_locked(
    study: StudyConfig, *, home: Path, trial: int, again: bool = False
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Trains the trial's recipe on all but the locked test images and scores those once; returns what they say.

    Test images that are open already are not opened for another trial, or again, unless ``again``; that is counted.
    Resumes as ``confirm_study`` does. Raises KdsearchError where it cannot start or continue.
    """
    url = storage_url(home, study.name, study.storage)
    require_ray(study.search)
    search = open_store(study, home, create=False)
    with Lease(url, study.name) as lease:
        yield Reading()
        prepared = prepare_test(study, home, search, trial=trial)
        sealed = sealed_plans(url, study.name, study_id=search.id, kind="test")
        same = [one for one in sealed if one.plan.tests_the_same(prepared.plan)]
        if same and not (again and same[-1].complete()):
            known = same[-1]
        elif again or not sealed:
            known = seal(url, study.name, prepared.plan, prepared.described, study_id=search.id)
        else:
            raise SearchError(_opened(study, sealed[-1], trial))
        return (yield from _to_the_end(study, home, prepared, known, lease=lease, search_id=search.id))


def _opened(study: StudyConfig, known: ConfirmStore, trial: int) -> str:
    """Why the locked images stay closed."""
    receipt, tested = known.receipt, known.plan.arms[0].trial
    words = "another plan of its" if tested == trial else f"trial {trial}"
    return (
        f"study {study.name}: its test images were opened on {receipt['sealed']} by {receipt['by']} for trial "
        f"{tested}; opening them for {words} too makes them validation images. --again does it, and every card and "
        "report counts it"
    )


def _to_the_end(
    study: StudyConfig, home: Path, prepared: Prepared, store: ConfirmStore, *, lease: Lease, search_id: str
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Carries the sealed plan out, where that is not done yet."""
    results, plan = store.results(), store.plan
    arms = {arm.id for arm in plan.arms}
    yield Sealed(
        prepared=dataclasses.replace(prepared, plan=plan),
        number=store.number,
        when=store.sealed,
        results=tuple(result for result in results.values() if result.arm in arms),
    )
    if not store.complete():
        scorer, jobs = _scorer(study, prepared), _dispatcher(study)
        session = ConfirmSession(
            study=study,
            home=home,
            lease=lease,
            jobs=jobs,
            store=store,
            search_id=search_id,
            prepared=prepared,
            scorer=scorer,
            results=results,
            dropped={},  # decided again fold by fold, so that a kill changes nothing
        )
        try:
            yield from _carry_out(session)
            return (yield from retry(session, partial(answers_of, store)))
        finally:
            jobs.executor.close()
    return answers_of(store)


def _sealed(
    study: StudyConfig, home: Path, search: StudyStore, *, url: str, anew: bool
) -> tuple[Prepared, ConfirmStore]:
    """The sealed plan with its images and folds; raises SearchError where settings or images are others now."""
    prepared = prepare(study, home, search)
    known = None if anew else open_confirmation(url, study.name, study_id=search.id)
    if known is None:
        return prepared, seal(url, study.name, prepared.plan, prepared.described, study_id=search.id)
    sealed = known.plan
    changed = [
        f"  confirm.{name}: was {was}, is {getattr(study.confirm, name)}"
        for name, was in sealed.settings
        if was != getattr(study.confirm, name)
    ]
    if changed:
        listed = "\n".join(changed)
        raise SearchError(
            f"study {study.name}: its confirmation was sealed with other settings:\n{listed}\nUndo the change, or seal "
            "another plan beside it with --new-plan; every report counts them"
        )
    if sealed.partitions != prepared.plan.partitions:
        raise SearchError(
            f"study {study.name}: the images are not those its confirmation was sealed with; restore them"
        )
    return prepared, known


def _dispatcher(study: StudyConfig) -> Dispatcher:
    device = choose_device(study.device)
    return Dispatcher(
        start_executor(study, device=device.type),
        study=study.name,
        watchdog=Watchdog(timeout=study.search.heartbeat_timeout),
        retries=study.search.retries,
    )


def _scorer(study: StudyConfig, prepared: Prepared) -> FoldScorer:
    dataset = prepared.images.dataset
    wanted = {dataset.infos[position].id for fold in prepared.folds[0] for position in fold.validation}
    return FoldScorer(dataset=dataset, masks=native_masks(study.data, wanted))


def _carry_out(session: ConfirmSession) -> Iterator[DriverEvent | ConfirmEvent]:
    """Repetition by repetition: the folds' teachers, then all that learns from them."""
    plan, sink = session.store.plan, RepeatSink(session)
    for repetition in range(len(plan.partitions)):
        materials = yield from _with_teachers(session, repetition)
        repeats = [repeat for repeat in plan.repeats() if repeat.repetition == repetition]
        folds = range(len(materials))
        stages = [[fold] for fold in folds] if plan.settings.racing else [list(folds)]
        for stage in stages:
            jobs = session.jobs
            for repeat in repeats:
                if repeat.fold in stage and _is_wanted(session, repeat):
                    jobs.waiting.append(_job(session, repeat, materials[repeat.fold]))
            while jobs.open:
                while jobs.waiting and jobs.room():
                    jobs.start_next()
                yield from jobs.poll(sink)
            if plan.settings.racing:
                yield from _drop(session, (repetition, stage[-1]))


def _with_teachers(
    session: ConfirmSession, repetition: int
) -> Generator[DriverEvent | ConfirmEvent, None, list[Materials]]:
    """Each fold's images with a teacher trained inside it, which is scored once."""
    study, plan, prepared = session.study, session.store.plan, session.prepared
    wanted = [
        teacher_of_fold(study, prepared.images, splits, seed=seed)
        for seed, splits in zip(plan.seeds[repetition], prepared.folds[repetition], strict=True)
    ]
    found = yield from add_teachers(
        study, wanted, session.jobs, home=session.home, study_id=session.search_id, threads=THREADS
    )
    for fold, materials in enumerate(found):
        if (TEACHER, repetition, fold) not in session.results:
            scores = session.scorer.teacher(materials.teacher, materials.splits)
            keep = partial(session.store.keep, TEACHER, repetition, fold, scores, recipe=None)
            yield from session.keep((yield from retry(session, keep)))
    return found


def _is_wanted(session: ConfirmSession, repeat: Repeat) -> bool:
    done = (repeat.arm.id, repeat.repetition, repeat.fold) in session.results
    return not done and repeat.arm.id not in session.dropped


def _drop(session: ConfirmSession, last: tuple[int, int]) -> Iterator[DriverEvent | ConfirmEvent]:
    """After a fold, drops the members that are worse beyond doubt, and twins that nobody needs."""
    plan = session.store.plan
    places = [(repetition, fold) for repetition, folds in enumerate(plan.partitions) for fold in range(len(folds))]
    done = [place for place in places if place <= last]
    found = overtaken(plan, session.prepared.described, session.results, done=done, dropped=session.dropped)
    found |= twins_without_member(plan, {*session.dropped, *found})
    if found:
        session.dropped |= found
        yield from retry(session, partial(session.store.drop, session.dropped))
        for arm, reason in found.items():
            yield Dropped(arm=arm, reason=reason)


def _job(session: ConfirmSession, repeat: Repeat, materials: Materials) -> Job:
    plan = session.store.plan
    job_id = plan.job(repeat)
    recipe = _recipe(session, repeat)
    return Job(
        id=job_id,
        recipe=from_anywhere(recipe, getattr(session.study.student, "weights", "")),
        materials=materials.place(session.home),
        checkpoint=session.checkpoint_of(job_id),
        subject=digest(CHECKPOINT_FORMAT, torch.__version__, materials.key, dump_recipe(recipe)),
        checkpoint_every_s=session.study.search.checkpoint_every_s,
        macs=repeat.arm.macs,
        threads=THREADS,
        kept="last",
    )


def _recipe(session: ConfirmSession, repeat: Repeat) -> Recipe:
    seed = session.store.plan.seeds[repeat.repetition][repeat.fold]
    return repeat.arm.recipe.model_copy(update={"seed": seed})


class RepeatSink:
    """Scores each trained arm on its fold, at the files' size too, and keeps that."""

    def __init__(self, session: ConfirmSession) -> None:
        self._session = session
        self._repeats = {session.store.plan.job(repeat): repeat for repeat in session.store.plan.repeats()}

    def epoch(self, job: Job, curve: tuple[EpochReport, ...], *, replayed: bool) -> str:  # noqa: ARG002 - the contract's names
        """Every arm is trained to its end."""
        return ""

    def stopped(self, job: Job, reason: str, curve: tuple[EpochReport, ...]) -> Iterator[DriverEvent | ConfirmEvent]:  # noqa: ARG002 - likewise
        """Never asked for, since ``epoch`` stops nothing."""
        raise AssertionError("no arm is stopped")

    def succeeded(
        self,
        job: Job,
        trained: Trained,
        curve: tuple[EpochReport, ...],  # noqa: ARG002 - likewise
    ) -> Iterator[DriverEvent | ConfirmEvent]:
        """The scores of an arm in a fold; a test's student may be shipped, so its weights are kept."""
        session, repeat = self._session, self._repeats[job.id]
        if session.store.plan.kind == "test":
            path = weights_path(session.home, session.study.name, job.id)
            yield from retry(session, partial(write_whole, str(path), trained.weights))
        fold = session.prepared.folds[repeat.repetition][repeat.fold]
        scores = session.scorer.student(job.student, trained, fold)
        keep = partial(session.store.keep, repeat.arm.id, repeat.repetition, repeat.fold, scores, recipe=job.student)
        result = yield from retry(session, keep)
        discard(job.checkpoint)
        yield from session.keep(result)

    def failed(
        self,
        job: Job,
        reason: str,
        curve: tuple[EpochReport, ...],  # noqa: ARG002 - likewise
        *,
        traceback: str = "",
    ) -> Iterator[DriverEvent | ConfirmEvent]:
        """An arm that cannot be trained in a fold, and so has no answer."""
        if traceback:
            logger.error("%s failed:\n%s", describe_job(job.id), traceback)
        session = self._session
        fail = partial(session.store.fail, self._repeats[job.id], reason, traceback=traceback)
        result = yield from retry(session, fail)
        discard(job.checkpoint)
        yield from session.keep(result)

    def lost(self, job: Job, reasons: tuple[str, ...]) -> Iterator[DriverEvent | ConfirmEvent]:  # noqa: ARG002 - likewise
        """The dispatcher tries again; a next driver counts from 0."""
        yield from ()
