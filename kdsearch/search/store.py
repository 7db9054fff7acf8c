"""The study in Optuna's storage: asks for recipes, is told how they ended, and gives back the records."""

from __future__ import annotations

import datetime
import json
import logging
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from kdsearch.config.home import storage_url
from kdsearch.config.ranges import AnyRange, Choice, FloatRange, IntRange
from kdsearch.config.recipe import Recipe
from kdsearch.config.search import Objective
from kdsearch.config.space import choose, enumerate_choices
from kdsearch.config.study import StudyConfig, digest
from kdsearch.distill.record import Outcome, TrialRecord
from kdsearch.distill.report import CURVE, EpochReport
from kdsearch.errors import SearchError
from kdsearch.measure.scores import SCORES, Scores
from kdsearch.search.samplers import build_sampler

logger = logging.getLogger(__name__)

DIRECTIONS: dict[Objective, Literal["maximize", "minimize"]] = {
    "dice": "maximize",
    "params": "minimize",
    "macs": "minimize",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A recipe that waits to be carried out under a trial's number."""

    number: int
    recipe: Recipe


class StudyStore:
    """One study in Optuna's storage; the driver alone holds it."""

    def __init__(self, study: StudyConfig, optuna_study: optuna.Study) -> None:
        self._config = study
        self._study = optuna_study

    def ask(self) -> Proposal | None:
        """The next recipe, already in the storage when it is returned; None where a grid has no more."""
        if self._config.search.sampler == "grid" and not self._waiting():
            choices = next(self._untried(), None)
            if choices is None:
                return None
            self._study.enqueue_trial(choices)
        trial = self._study.ask()
        seed = int(digest(self._config.seed, trial.number), 16) % 2**31
        recipe = choose(self._config, lambda name, value: _suggest(trial, name, value), seed=seed)
        trial.set_user_attr("recipe", recipe.model_dump_json())
        return Proposal(number=trial.number, recipe=recipe)

    def finish(self, number: int, scores: Scores, curve: tuple[EpochReport, ...]) -> TrialRecord:
        """Tells Optuna the objectives and keeps all that was measured."""
        self._keep(
            number, outcome="finished", scores=SCORES.dump_json(scores).decode(), curve=CURVE.dump_json(curve).decode()
        )
        values = {"dice": scores.dice, "params": float(scores.params), "macs": float(scores.macs)}
        self._study.tell(number, [values[objective] for objective in self._config.search.objectives])
        return self._record(number)

    def reject(self, number: int, reason: str) -> TrialRecord:
        """An over-budget recipe: Optuna is told PRUNED, which TPE takes for a bad one."""
        self._keep(number, outcome="rejected", reason=reason)
        self._study.tell(number, state=TrialState.PRUNED)
        return self._record(number)

    def fail(self, number: int, reason: str, curve: tuple[EpochReport, ...] = ()) -> TrialRecord:
        """A training that could not go on: Optuna is told FAIL, from which samplers learn nothing."""
        self._keep(number, outcome="failed", reason=reason, curve=CURVE.dump_json(curve).decode())
        self._study.tell(number, state=TrialState.FAIL)
        return self._record(number)

    def abandoned(self) -> list[Proposal]:
        """Trials a former driver left running, to be carried out again under their numbers.

        One whose recipe never reached the storage is recorded as failed.
        """
        proposals = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = read_record(trial)
            if record.recipe is None:
                self.fail(trial.number, "the driver ended before the recipe was stored")
            else:
                proposals.append(Proposal(number=trial.number, recipe=record.recipe))
        return proposals

    def records(self) -> tuple[TrialRecord, ...]:
        """Every trial, by number."""
        trials = self._study.get_trials(
            deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        )
        return tuple(read_record(trial) for trial in trials)

    def complete(self) -> bool:
        """Whether nothing is left to do: every trial ended, and as many as wanted or as the grid has."""
        records = self.records()
        counted = sum(record.outcome != "rejected" for record in records)
        whole_grid = self._config.search.sampler == "grid" and next(self._untried(), None) is None
        ended = all(record.outcome != "running" for record in records)
        return ended and (counted >= self._config.search.trials or whole_grid)

    def bind(self, *, data: str, teacher: str, scores: Scores) -> None:
        """Ties the study to the fingerprints of its data and teacher, and keeps the teacher's scores.

        Raises SearchError where its trials were made from others.
        """
        known = self._study.user_attrs
        has_trials = bool(self._study.get_trials(deepcopy=False))
        for key, what, now in (
            ("data", "images or their split", data),
            ("teacher_id", "teacher or its weights", teacher),
        ):
            if has_trials and known.get(key, now) != now:
                raise SearchError(
                    f"study {self._config.name}: the {what} are not those its trials were made from "
                    f"({known[key]}, now {now}); restore them, or give the study another name"
                )
            self._study.set_user_attr(key, now)
        self._study.set_user_attr("teacher", SCORES.dump_json(scores).decode())

    @property
    def id(self) -> str:
        """Tells this study from another of the same name."""
        return str(self._study.user_attrs["id"])

    def teacher(self) -> Scores | None:
        """The teacher's scores; None before it was trained."""
        known = self._study.user_attrs.get("teacher")
        return SCORES.validate_json(known) if known else None

    def _untried(self) -> Iterator[dict[str, object]]:
        """The grid's choices that no trial has taken."""
        trials = self._study.get_trials(deepcopy=False)
        taken = {frozenset(trial.params.items()) for trial in trials if "recipe" in trial.user_attrs}
        return (choices for choices in enumerate_choices(self._config) if frozenset(choices.items()) not in taken)

    def _waiting(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _keep(self, number: int, **attributes: str) -> None:
        storage = self._study._storage  # noqa: SLF001 - a trial another process asked for has no public handle
        trial_id = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)  # noqa: SLF001
        for key, value in attributes.items():
            storage.set_trial_user_attr(trial_id, key, value)

    def _record(self, number: int) -> TrialRecord:
        return read_record(self._study.get_trials(deepcopy=False)[number])


def open_store(study: StudyConfig, home: Path, *, create: bool) -> StudyStore:
    """The study's storage, made where it is missing and ``create`` says so.

    Raises SearchError where it cannot be reached, does not hold the study, or holds it with other settings.
    """
    url = storage_url(home, study.name, study.storage)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
    if path is not None and not create and not path.exists():
        raise SearchError(f"study {study.name} has not been run yet: {path} does not exist; start it with kdsearch run")
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        optuna_study = _open(study, RDBStorage(url), create=create)
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise SearchError(f"study {study.name}: its storage cannot be opened: {str(error).splitlines()[0]}") from error
    _refuse_changes(study, optuna_study)
    return StudyStore(study, optuna_study)


def _open(study: StudyConfig, storage: RDBStorage, *, create: bool) -> optuna.Study:
    exists = study.name in optuna.get_all_study_names(storage)
    if exists and create and _is_blank(study, storage):
        optuna.delete_study(storage=storage, study_name=study.name)
        exists = False
    if not exists:
        if not create:
            raise SearchError(
                f"study {study.name} has not been run yet: its storage does not hold it; start it with kdsearch run"
            )
        directions = [DIRECTIONS[objective] for objective in study.search.objectives]
        made = optuna.create_study(storage=storage, study_name=study.name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made.set_metric_names(list(study.search.objectives))
        made.set_user_attr("study", json.dumps(study.identity()))
        made.set_user_attr("id", uuid.uuid4().hex)
    opened = optuna.load_study(storage=storage, study_name=study.name)
    asked = len(opened.get_trials(deepcopy=False))
    opened.sampler = build_sampler(study.search, seed=int(digest("sampler", study.seed, asked), 16) % 2**31)
    return opened


def _is_blank(study: StudyConfig, storage: RDBStorage) -> bool:
    """Whether the study was begun with other settings and no trial was made yet, so that nothing is lost with it."""
    known = optuna.load_study(storage=storage, study_name=study.name)
    return not known.get_trials(deepcopy=False) and known.user_attrs.get("study") != json.dumps(study.identity())


def _refuse_changes(study: StudyConfig, optuna_study: optuna.Study) -> None:
    known = json.loads(optuna_study.user_attrs.get("study", "null"))
    now = study.identity()
    if known is None or known == now:
        return
    changed = [
        f"  {key}: was {known.get(key)}, is {now.get(key)}"
        for key in sorted(known | now)
        if known.get(key) != now.get(key)
    ]
    raise SearchError(
        f"study {study.name} already has trials, made with other settings:\n" + "\n".join(changed) + "\n"
        "Undo the change, or give the study another name."
    )


def read_record(trial: FrozenTrial) -> TrialRecord:
    """What the storage tells of a trial."""
    attributes = trial.user_attrs
    outcome: Outcome = "running" if trial.state == TrialState.RUNNING else attributes.get("outcome", "failed")
    return TrialRecord(
        number=trial.number,
        outcome=outcome,
        recipe=Recipe.model_validate_json(attributes["recipe"]) if "recipe" in attributes else None,
        scores=SCORES.validate_json(attributes["scores"]) if outcome == "finished" else None,
        curve=CURVE.validate_json(attributes.get("curve", "[]")),
        reason=attributes.get("reason", ""),
        started=_utc(trial.datetime_start),
        ended=_utc(trial.datetime_complete),
    )


def _utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    return moment.astimezone(datetime.UTC) if moment else None


def _suggest(trial: optuna.Trial, name: str, value: AnyRange) -> object:
    match value:
        case Choice(choice=choice):
            return trial.suggest_categorical(name, choice)
        case IntRange(bounds=(low, high), log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case FloatRange(bounds=(low, high), log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
