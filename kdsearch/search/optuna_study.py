"""The Optuna study that stores a search's trials, and the data and teacher it is bound to."""

from __future__ import annotations

import datetime
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from kdsearch.config.identity import dump_identity
from kdsearch.config.search import Objective
from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import DataSummary, read_summary
from kdsearch.errors import NotRunYetError, SearchError
from kdsearch.trials.record import EpochReport, TrialRecord, read_curve, read_record
from kdsearch.trials.scores import Scores, read_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A study's id and the data and teacher of its trials, which do not change while it runs."""

    id: str
    """Distinguishes the study from another one with the same name."""
    teacher_id: str
    """Empty until the study is bound."""
    teacher: Scores | None
    """None until the study is bound."""
    teacher_curve: tuple[EpochReport, ...]
    """The teacher's epochs; empty until the study is bound."""
    data: DataSummary | None
    """None until the study is bound."""


def read_bound(stored: Mapping[str, Any]) -> Bound:
    """Reads the attributes of an Optuna study; raises KdsearchError if a newer release wrote them."""
    return Bound(
        id=str(stored["id"]),
        teacher_id=str(stored.get("teacher_id", "")),
        teacher=read_scores(stored["teacher"]) if "teacher" in stored else None,
        teacher_curve=read_curve(stored.get("teacher_curve", "[]")),
        data=read_summary(stored["data_summary"]) if "data_summary" in stored else None,
    )


def made_from(data: DataSummary, student_weights: str, teacher_id: str | None) -> Iterator[tuple[str, str, str]]:
    """Yields what a study's trials depend on: the stored key, its name in messages and its current value."""
    yield "data", "images or their split", data.split
    if teacher_id is not None:
        yield "teacher_id", "teacher or its weights", teacher_id
    yield "unlabelled", "images of data.unlabelled", data.unlabelled_fingerprint or ""
    yield "student_weights", "weights in student.weights", student_weights


def require_unchanged(known: Mapping[str, Any], made_from: Iterator[tuple[str, str, str]], *, study: str) -> None:
    """Raises SearchError if anything that trials depend on differs from its stored value."""
    for key, what, now in made_from:
        if known.get(key, now) != now:
            raise SearchError(
                f"study {study}: the {what} have changed since its trials were trained (was {known[key]}, now {now}); "
                "restore them, or give the study another name"
            )


DIRECTIONS: dict[Objective, Literal["maximize", "minimize"]] = {
    "dice": "maximize",
    "params": "minimize",
    "macs": "minimize",
    "latency_ms": "minimize",
    "specificity": "maximize",
}
START = "start it with kdsearch run"


def open_study(study: StudyConfig, storage: RDBStorage, *, create: bool) -> optuna.Study:
    """Opens the Optuna study with this name; raises NotRunYetError if it does not exist and ``create`` is false."""
    exists = study.name in optuna.get_all_study_names(storage)
    if exists and create:
        known = optuna.load_study(storage=storage, study_name=study.name)
        if not known.get_trials(deepcopy=False) and known.user_attrs.get("study") != dump_identity(study):
            optuna.delete_study(storage=storage, study_name=study.name)  # without trials, nothing is lost
            exists = False
    if not exists:
        if not create:
            raise NotRunYetError(f"study {study.name} has not been run yet: it is not in its Optuna database; {START}")
        directions = [DIRECTIONS[objective] for objective in study.search.objectives]
        made = optuna.create_study(storage=storage, study_name=study.name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made.set_metric_names(list(study.search.objectives))
        made.set_user_attr("id", uuid.uuid4().hex)
        made.set_user_attr("study", dump_identity(study))
    return optuna.load_study(storage=storage, study_name=study.name)


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Converts an Optuna trial; raises KdsearchError if a newer release wrote it."""
    return read_record(
        trial.number,
        trial.user_attrs,
        running=trial.state == TrialState.RUNNING,
        started=_utc(trial.datetime_start),
        ended=_utc(trial.datetime_complete),
    )


def _utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    return moment.astimezone(datetime.UTC) if moment else None
