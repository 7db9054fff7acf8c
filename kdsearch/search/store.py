"""A study's Optuna database: proposes recipes, stores how trials end, and returns their records."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdsearch.campaign.storage import open_storage, quiet_optuna, storage_errors
from kdsearch.config.identity import changed_settings
from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import DataSummary, dump_summary
from kdsearch.errors import NotRunYetError, SearchError
from kdsearch.files.digests import seed_of
from kdsearch.files.home import sqlite_file, storage_url
from kdsearch.search.optuna_study import START, Bound, made_from, open_study, read_bound, record_of, require_unchanged
from kdsearch.search.recipes import enumerate_choices
from kdsearch.search.sampling import SamplerStudy, with_donor
from kdsearch.trials.recipe import Recipe, dump_recipe, read_recipe
from kdsearch.trials.record import SCHEMA, EpochReport, Outcome, Student, TrialRecord, dump_cost, dump_curve
from kdsearch.trials.scores import Cost, Scores, dump_scores, read_scores

if TYPE_CHECKING:
    from kdsearch.distill.teacher_folder import TrainedTeacher

logger = logging.getLogger(__name__)

STATES: dict[Outcome, TrialState] = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "rejected": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
"""Optuna's state for each outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A recipe to train, with its trial's number."""

    number: int
    recipe: Recipe


class StudyStore:
    """One study in its Optuna database; only the driver writes to it."""

    def __init__(self, study: StudyConfig, optuna_study: optuna.Study, *, mirror: SamplerStudy | None = None) -> None:
        self._config = study
        self._study = optuna_study
        self._drawn: tuple[Proposal, FrozenTrial] | None = None
        self._grid: Iterator[dict[str, object]] | None = None
        self._next: dict[str, object] | None = None
        self._taken: set[frozenset[tuple[str, object]]] = set()
        self._looked_at = 0
        if mirror is not None:  # readers do not need it
            self._mirror = mirror

    @functools.cached_property
    def _mirror(self) -> SamplerStudy:
        return SamplerStudy(self._config, self._study)

    def ask(self, *, donors: Sequence[Student] = ()) -> Proposal | None:
        """Draws the next recipe and stores its trial; returns None if a grid is exhausted.

        ``donors`` are finished trials whose weights it may inherit, if the study allows that. The result depends only
        on the seed, the trial's number and the trials so far, even if drivers were killed in between. Recipes are drawn
        from an in-memory mirror, because samplers read every running trial again for each value, and are then stored
        in one write.
        """
        retried = self._drawn is not None
        self._drawn = self._drawn or self._draw(donors)
        if self._drawn is None:
            return None
        proposal, trial = self._drawn
        if not (retried and self._is_stored(proposal.number)):  # a failed write may have succeeded in the database
            study_id = self._study._study_id  # noqa: SLF001 - add_trial does not return the number
            trial_id = self.storage.create_new_trial(study_id, template_trial=trial)
            if self.storage.get_trial_number_from_id(trial_id) != proposal.number:
                self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
                raise SearchError(
                    f"study {self._config.name}: another program added trial {proposal.number}; only kdsearch may add "
                    "trials to a study"
                )
        self._drawn = None
        return proposal

    def _draw(self, donors: Sequence[Student]) -> tuple[Proposal, FrozenTrial] | None:
        choices = None
        if self._config.search.sampler == "grid":
            choices = self._untried()
            if choices is None:
                return None
        number, seed = self._mirror.number, self._config.seed
        sampler_seed = seed_of("sampler", seed, number)
        training_seed = seed_of(seed, number) if self._config.search.seed_per_trial else seed
        recipe, drawn = self._mirror.draw(sampler_seed=sampler_seed, seed=training_seed, choices=choices)
        recipe = with_donor(recipe, donors, self._config.search)
        stored = create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs=SCHEMA.stamped({"recipe": dump_recipe(recipe)}),
            system_attrs=drawn.system_attrs,
        )
        return Proposal(number=number, recipe=recipe), stored

    def _is_stored(self, number: int) -> bool:
        try:
            self._trial_id(number)
        except KeyError:
            return False
        return True

    def finish(self, number: int, scores: Scores, curve: tuple[EpochReport, ...]) -> TrialRecord:
        """Stores a finished trial with its objectives and all scores."""
        share = scores.overlap.specificity
        known = {} if share is None else {"specificity": repr(share)}
        return self._end(number, "finished", scores=dump_scores(scores), curve=dump_curve(curve), **known)

    def stop(self, number: int, reason: str, *, curve: tuple[EpochReport, ...], cost: Cost) -> TrialRecord:
        """Stores a stopped trial as PRUNED, without intermediate values, so that TPE ranks it below finished ones."""
        return self._end(number, "stopped", reason=reason, curve=dump_curve(curve), cost=dump_cost(cost))

    def reject(self, number: int, reason: str, *, violation: float) -> TrialRecord:
        """Stores a recipe over its limits as FAIL; the sampler sees a constraint violated by ``violation``, above 0."""
        return self._end(number, "rejected", reason=reason, violation=repr(violation))

    def fail(
        self, number: int, reason: str, curve: tuple[EpochReport, ...] = (), *, traceback: str = ""
    ) -> TrialRecord:
        """Stores a failed trial as FAIL, which samplers ignore."""
        where = {"traceback": traceback} if traceback else {}
        return self._end(number, "failed", reason=reason, curve=dump_curve(curve), **where)

    def lose(self, number: int, reasons: tuple[str, ...]) -> None:
        """Stores why a running trial has lost workers so far."""
        self._keep(number, lost=json.dumps(reasons))

    def _end(self, number: int, outcome: Outcome, **attributes: str) -> TrialRecord:
        """Stores the attributes, the outcome last, and then ends the trial; after a kill in between, it ends later."""
        trial = self._trial(number)
        if not trial.state.is_finished():
            today = SCHEMA.stamped(SCHEMA.upgraded(trial.user_attrs))
            changed = {key: value for key, value in today.items() if trial.user_attrs.get(key) != value}
            self._keep(number, **changed | attributes, outcome=outcome)
        return self._tell(number)

    def _tell(self, number: int) -> TrialRecord:
        trial = self._trial(number)
        state = STATES[trial.user_attrs["outcome"]]
        values = None
        if state == TrialState.COMPLETE:
            metrics = read_scores(trial.user_attrs["scores"]).metrics()
            values = [metrics[objective] for objective in self._config.search.objectives]
        self._study.tell(number, values, state=state, skip_if_finished=True)
        told = self._trial(number)
        self._mirror.end(told)
        return record_of(told)

    def abandoned(self) -> list[Proposal]:
        """The trials that an earlier driver left running, to be resumed with their numbers.

        Ends those whose outcome was stored before the driver was killed.
        """
        proposals = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "outcome" in trial.user_attrs:
                self._tell(trial.number)
            else:
                recipe = read_recipe(trial.user_attrs["recipe"])
                proposals.append(Proposal(number=trial.number, recipe=recipe))
        return proposals

    def records(self) -> tuple[TrialRecord, ...]:
        trials = self._study.get_trials(
            deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        )
        return tuple(record_of(trial) for trial in trials)

    def complete(self) -> bool:
        """Whether all trials have ended and there are as many as requested, or as the grid has."""
        records = self.records()
        counted = sum(record.outcome != "rejected" for record in records)
        whole_grid = self._config.search.sampler == "grid" and self._untried() is None
        ended = all(record.outcome != "running" for record in records)
        return ended and (counted >= self._config.search.trials or whole_grid)

    def bind(self, *, data: DataSummary, teacher: TrainedTeacher, student_weights: str = "") -> Bound:
        """Binds the study to the fingerprints of its data and teacher, and stores the teacher's scores.

        ``student_weights`` is the digest of the weights that students start from. Raises SearchError if existing trials
        were trained with others.
        """
        self.require_same(data=data, student_weights=student_weights, teacher_id=teacher.id)
        for key, _, now in made_from(data, student_weights, teacher.id):
            self._study.set_user_attr(key, now)
        self._study.set_user_attr("teacher", dump_scores(teacher.scores))
        self._study.set_user_attr("teacher_curve", dump_curve(teacher.curve))
        self._study.set_user_attr("data_summary", dump_summary(data))
        return self.bound()

    def require_same(self, *, data: DataSummary, student_weights: str = "", teacher_id: str | None = None) -> None:
        """Raises SearchError if existing trials used other data or weights, or another teacher if one is given."""
        if self._study.get_trials(deepcopy=False):
            now = made_from(data, student_weights, teacher_id)
            require_unchanged(self._study.user_attrs, now, study=self._config.name)

    def importances(self) -> dict[str, float]:
        """The importance of each searched setting for Dice; see ``search.importance``."""
        from kdsearch.search.importance import importances_of  # takes a second to import

        return importances_of(self._study, self._config)

    def bound(self) -> Bound:
        """The study's id and what it is bound to, in one read."""
        return read_bound(self._study.user_attrs)

    @property
    def id(self) -> str:
        """Distinguishes this study from another one with the same name."""
        return self.bound().id

    @property
    def teacher_id(self) -> str:
        """The teacher's id; empty until the study is bound."""
        return self.bound().teacher_id

    def teacher(self) -> Scores | None:
        """The teacher's scores; None until the study is bound."""
        return self.bound().teacher

    def data(self) -> DataSummary | None:
        """A summary of the data; None until the study is bound."""
        return self.bound().data

    def _untried(self) -> dict[str, object] | None:
        """The grid's first values that no trial has; None if there are none.

        The grid is traversed only once, because trials are never removed.
        """
        trials = self._mirror.trials
        self._taken |= {frozenset(trial.params.items()) for trial in trials[self._looked_at :]}
        self._looked_at = len(trials)
        if self._grid is None:
            self._grid = enumerate_choices(self._config)
            self._next = next(self._grid, None)
        while self._next is not None and frozenset(self._next.items()) in self._taken:
            self._next = next(self._grid, None)
        return self._next

    def _keep(self, number: int, **attributes: str) -> None:
        for key, value in attributes.items():
            self.storage.set_trial_user_attr(self._trial_id(number), key, value)

    def _trial(self, number: int) -> FrozenTrial:
        return self.storage.get_trial(self._trial_id(number))

    def _trial_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)  # noqa: SLF001

    @property
    def storage(self) -> BaseStorage:
        """The Optuna storage that holds the study."""
        return self._study._storage  # noqa: SLF001 - no public API for trials of other processes


def open_store(study: StudyConfig, home: Path, *, create: bool) -> StudyStore:
    """Opens the study in its Optuna database, and creates it if it is missing and ``create`` is true.

    Raises SearchError if the database is unreachable, lacks the study, or has it with other settings.
    """
    optuna_study = _reached(study, home, create=create)
    changed = changed_settings(optuna_study.user_attrs.get("study"), study)
    if changed:
        raise SearchError(
            f"study {study.name} already has trials, made with other settings:\n{changed}\n"
            "Undo the change, or give the study another name."
        )
    return StudyStore(study, optuna_study, mirror=SamplerStudy(study, optuna_study))


def read_store(study: StudyConfig, home: Path) -> StudyStore:
    """Opens the study for reading only; warns if settings, such as defaults, have changed since.

    Raises SearchError if the database is unreachable or lacks the study.
    """
    optuna_study = _reached(study, home, create=False)
    changed = changed_settings(optuna_study.user_attrs.get("study"), study)
    if changed:
        _warn_once(
            f"study {study.name}: its trials were trained with other settings:\n{changed}\nThe results shown are those "
            "of the earlier settings."
        )
    return StudyStore(study, optuna_study)


@functools.lru_cache(maxsize=128)
def _warn_once(text: str) -> None:
    logger.warning(text)


def _reached(study: StudyConfig, home: Path, *, create: bool) -> optuna.Study:
    url = storage_url(home, study.name, study.storage)
    path = sqlite_file(url)
    if path is not None and not create and not path.exists():
        raise NotRunYetError(f"study {study.name} has not been run yet: {path} does not exist; {START}")
    with quiet_optuna(), storage_errors(study.name):
        return open_study(study, open_storage(url), create=create)
