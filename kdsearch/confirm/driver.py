"""Runs or resumes a sealed plan, with the same executors, checkpoints and retries as a search."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from kdsearch.campaign.driver import Campaign, campaign, train_all
from kdsearch.campaign.events import DriverEvent, LoadingData, Resumed, Trouble, Waiting
from kdsearch.campaign.lease import Lease
from kdsearch.campaign.teachers import add_teachers
from kdsearch.config.study import StudyConfig
from kdsearch.confirm.answers import answers_of
from kdsearch.confirm.plan import Plan, Repeat
from kdsearch.confirm.preparation import Prepared, prepare, prepare_test, teacher_of_fold
from kdsearch.confirm.scoring import FoldScorer, overtaken, twins_without_member
from kdsearch.confirm.store import TEACHER, ConfirmStore, FoldResult, open_confirmation, seal, sealed_plans
from kdsearch.data.frame import Frame
from kdsearch.data.native import native_masks
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Trained
from kdsearch.errors import SearchError
from kdsearch.files.atomic import atomic_write, discard
from kdsearch.files.home import storage_url, weights_path
from kdsearch.search.store import StudyStore, open_store
from kdsearch.statistics.confirmation import Confirmation
from kdsearch.trials.record import EpochReport, describe_job
from kdsearch.workers.jobs import EpochEnded, Job
from kdsearch.workers.ray_cluster import require_ray

THREADS = 1
"""Torch threads per training run; one gives the same results on a CPU with any number of workers."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFixed:
    """The plan was sealed, now or by an earlier driver, and its training starts."""

    prepared: Prepared
    number: int
    """The plan's number in the study, from 1."""
    when: str
    """In UTC, as ISO 8601."""
    results: tuple[FoldResult, ...]
    """Results from earlier drivers, without teachers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldScored:
    """An arm was trained and scored in a fold, or failed."""

    result: FoldResult


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberDropped:
    """An arm is not trained further: a member clearly worse than one of at most its size, or the twin of one."""

    arm: str
    reason: str


ConfirmEvent: TypeAlias = LoadingData | PlanFixed | FoldScored | MemberDropped | EpochEnded | Trouble


def confirm_study(
    study: StudyConfig, *, home: Path, anew: bool = False
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Seals the study's plan, or resumes the sealed one, and trains all of it; returns the answers.

    ``anew`` seals an additional plan; the earlier one is kept, and reports show how many there are. Closing the
    generator, or an interrupt, ends the workers; the next call resumes from their checkpoints. Raises KdsearchError if
    the confirmation cannot start or continue.
    """
    url = storage_url(home, study.name, study.storage)
    require_ray(study.search)
    search = open_store(study, home, create=False)
    with Lease(url, study.name) as lease:
        yield LoadingData()
        prepared, store = _sealed(study, home, search, url=url, anew=anew)
        return (yield from _run(study, home, prepared, store, lease=lease, search_id=search.id))


def score_locked(
    study: StudyConfig, *, home: Path, trial: int, again: bool = False
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Trains the trial's recipe on all images except the locked test images and scores it on those.

    If the test images were used before, ``again`` is needed to use them again; reports show how often they were used.
    Resumes as ``confirm_study`` does. Raises KdsearchError if the test cannot start or continue.
    """
    url = storage_url(home, study.name, study.storage)
    require_ray(study.search)
    search = open_store(study, home, create=False)
    with Lease(url, study.name) as lease:
        yield LoadingData()
        prepared = prepare_test(study, home, search, trial=trial)
        sealed = sealed_plans(url, study.name, study_id=search.id, kind="test")
        same = [one for one in sealed if one.plan.tests_the_same(prepared.plan)]
        if same and not (again and same[-1].complete()):
            known = same[-1]
        elif again or not sealed:
            known = seal(url, study.name, prepared.plan, prepared.described, study_id=search.id)
        else:
            raise SearchError(_opened(study, sealed[-1], trial))
        return (yield from _run(study, home, prepared, known, lease=lease, search_id=search.id))


def _opened(study: StudyConfig, known: ConfirmStore, trial: int) -> str:
    receipt, tested = known.receipt, known.plan.arms[0].trial
    purpose = f"another plan of trial {trial}" if tested == trial else f"trial {trial}"
    return (
        f"study {study.name}: its test images were used for trial {tested} on {receipt['sealed']} by {receipt['by']}. "
        f"Using them for {purpose} too turns them into validation images; --again does so, and every card and report "
        "shows how often they were used"
    )


def _run(
    study: StudyConfig, home: Path, prepared: Prepared, store: ConfirmStore, *, lease: Lease, search_id: str
) -> Generator[DriverEvent | ConfirmEvent, None, Confirmation]:
    """Trains what is left of a sealed plan and returns the answers."""
    results, plan = store.results(), store.plan
    arms = {arm.id for arm in plan.arms}
    yield PlanFixed(
        prepared=dataclasses.replace(prepared, plan=plan),
        number=store.number,
        when=store.sealed,
        results=tuple(result for result in results.values() if result.arm in arms),
    )
    if store.complete():
        return answers_of(store)
    scorer = _scorer(study, prepared)
    with campaign(study, home, study_id=search_id, lease=lease) as started:
        runs = FoldRuns(started, store=store, prepared=prepared, scorer=scorer, results=results)
        yield from _carry_out(started, runs, plan)
        return (yield from started.write(partial(answers_of, store)))


def _sealed(
    study: StudyConfig, home: Path, search: StudyStore, *, url: str, anew: bool
) -> tuple[Prepared, ConfirmStore]:
    """Opens or seals the plan; raises SearchError if settings or images have changed since it was sealed."""
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
            "an additional plan with --new-plan; reports show how many plans there are"
        )
    if sealed.partitions != prepared.plan.partitions:
        raise SearchError(
            f"study {study.name}: the images have changed since its confirmation was sealed; restore them"
        )
    return prepared, known


def _scorer(study: StudyConfig, prepared: Prepared) -> FoldScorer:
    dataset = prepared.images.dataset
    wanted = {dataset.infos[position].id for fold in prepared.folds[0] for position in fold.validation}
    return FoldScorer(
        dataset=dataset, masks=native_masks(study.data, wanted), task=study.data.task, frame=Frame.of(study.data)
    )


def _carry_out(started: Campaign, runs: FoldRuns, plan: Plan) -> Iterator[DriverEvent | ConfirmEvent]:
    """Trains repetition by repetition: first the teachers of all folds, then the arms."""
    for repetition in range(len(plan.partitions)):
        yield from runs.add_teachers(repetition)
        folds = range(len(plan.partitions[repetition]))
        for stage in [[fold] for fold in folds] if plan.settings.racing else [list(folds)]:
            runs.begin(repetition, stage)
            yield from train_all(started, runs)
            if plan.settings.racing:
                yield from runs.drop((repetition, stage[-1]))


class FoldRuns:
    """The source of a confirmation's jobs: trains, scores and stores every arm in every fold."""

    stopping = None
    losses = None

    def __init__(
        self,
        campaign: Campaign,
        *,
        store: ConfirmStore,
        prepared: Prepared,
        scorer: FoldScorer,
        results: dict[tuple[str, int, int], FoldResult],
    ) -> None:
        """``results`` are those of earlier drivers, by arm, repetition and fold."""
        self._campaign, self._store, self._plan = campaign, store, store.plan
        self._prepared, self._scorer, self._results = prepared, scorer, results
        self._repeats = {self._plan.job(repeat): repeat for repeat in self._plan.repeats()}
        self._dropped: dict[str, str] = {}  # decided again for each fold, so that a restart changes nothing
        self._materials: list[Materials] = []
        self._left: deque[Repeat] = deque()

    @property
    def is_done(self) -> bool:
        """Whether all jobs of the stage were started."""
        return not self._left

    def begin(self, repetition: int, folds: Sequence[int]) -> None:
        """Starts a stage: queues every arm in these folds, unless it has a result or was dropped."""
        self._left = deque(
            repeat
            for repeat in self._plan.repeats()
            if repeat.repetition == repetition
            and repeat.fold in folds
            and repeat.arm.id not in self._dropped
            and (repeat.arm.id, repetition, repeat.fold) not in self._results
        )

    def add_teachers(self, repetition: int) -> Iterator[DriverEvent | ConfirmEvent]:
        """Trains a teacher on each fold's training images and scores it once."""
        study = self._campaign.study
        wanted = [
            teacher_of_fold(study, self._prepared.images, splits, seed=seed)
            for seed, splits in zip(self._plan.seeds[repetition], self._prepared.folds[repetition], strict=True)
        ]
        self._materials = yield from add_teachers(self._campaign, wanted, threads=THREADS)
        for fold, materials in enumerate(self._materials):
            if (TEACHER, repetition, fold) not in self._results:
                scores = self._scorer.teacher(materials.teacher, materials.splits)
                keep = partial(self._store.keep, TEACHER, repetition, fold, scores, recipe=None)
                yield from self._keep((yield from self._campaign.write(keep)))

    def next_job(self) -> Generator[Waiting | Resumed, None, Job | None]:
        yield from ()
        return self._job(self._left.popleft()) if self._left else None

    def succeeded(
        self,
        job: Job,
        trained: Trained,
        curve: tuple[EpochReport, ...],  # noqa: ARG002 - the protocol's name
    ) -> Iterator[DriverEvent | ConfirmEvent]:
        """Scores and stores an arm in a fold; also stores the weights of a test's student, which may be shipped."""
        started, repeat = self._campaign, self._repeats[job.id]
        if self._plan.kind == "test":
            path = weights_path(started.home, started.study.name, job.id)
            yield from started.write(partial(atomic_write, str(path), trained.weights))
        fold = self._prepared.folds[repeat.repetition][repeat.fold]
        scores = self._scorer.student(job.student, trained, fold)
        keep = partial(self._store.keep, repeat.arm.id, repeat.repetition, repeat.fold, scores, recipe=job.student)
        result = yield from started.write(keep)
        discard(job.checkpoint)
        yield from self._keep(result)

    def failed(
        self,
        job: Job,
        reason: str,
        curve: tuple[EpochReport, ...],  # noqa: ARG002 - the protocol's name
        *,
        traceback: str = "",
    ) -> Iterator[DriverEvent | ConfirmEvent]:
        """Stores that an arm failed in a fold; it gets no answer."""
        if traceback:
            logger.error("%s failed:\n%s", describe_job(job.id), traceback)
        fail = partial(self._store.fail, self._repeats[job.id], reason, traceback=traceback)
        result = yield from self._campaign.write(fail)
        discard(job.checkpoint)
        yield from self._keep(result)

    def drop(self, last: tuple[int, int]) -> Iterator[DriverEvent | ConfirmEvent]:
        """After a fold, drops members that are clearly worse, and twins without a member."""
        plan = self._plan
        places = [(repetition, fold) for repetition, folds in enumerate(plan.partitions) for fold in range(len(folds))]
        done = [place for place in places if place <= last]
        found = overtaken(plan, self._prepared.described, self._results, done=done, dropped=self._dropped)
        found |= twins_without_member(plan, {*self._dropped, *found})
        if found:
            self._dropped |= found
            yield from self._campaign.write(partial(self._store.drop, self._dropped))
            for arm, reason in found.items():
                yield MemberDropped(arm=arm, reason=reason)

    def _keep(self, result: FoldResult) -> Iterator[FoldScored]:
        self._results[result.arm, result.repetition, result.fold] = result
        yield FoldScored(result=result)

    def _job(self, repeat: Repeat) -> Job:
        materials = self._materials[repeat.fold]
        seed = self._plan.seeds[repeat.repetition][repeat.fold]
        return self._campaign.student_job(
            self._plan.job(repeat),
            repeat.arm.recipe.model_copy(update={"seed": seed}),
            materials,
            made_from=(materials.key,),
            threads=THREADS,
            kept="last",
        )
