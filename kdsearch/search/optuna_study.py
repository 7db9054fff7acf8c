"""The Optuna study that holds a search's trials, and what those trials are made from."""

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
    """What a study is known by and what its trials are made from; it does not change while the study runs."""

    id: str
    """Tells the study from another of the same name."""
    teacher_id: str
    """Empty before a teacher was bound."""
    teacher: Scores | None
    """None before that."""
    teacher_curve: tuple[EpochReport, ...]
    """The teacher's epochs; empty before that."""
    data: DataSummary | None
    """None before that."""


def read_bound(stored: Mapping[str, Any]) -> Bound:
    """From the attributes of Optuna's study; raises KdsearchError if a newer release wrote them."""
    return Bound(
        id=str(stored["id"]),
        teacher_id=str(stored.get("teacher_id", "")),
        teacher=read_scores(stored["teacher"]) if "teacher" in stored else None,
        teacher_curve=read_curve(stored.get("teacher_curve", "[]")),
        data=read_summary(stored["data_summary"]) if "data_summary" in stored else None,
    )


def made_from(data: DataSummary, student_weights: str, teacher_id: str | None) -> Iterator[tuple[str, str, str]]:
    """What a study's trials are tied to: the key it is stored under, its name in messages, and what it is now."""
    yield "data", "images or their split", data.split
    if teacher_id is not None:
        yield "teacher_id", "teacher or its weights", teacher_id
    yield "unlabelled", "images of data.unlabelled", data.unlabelled_fingerprint or ""
    yield "student_weights", "file's student.weights", student_weights


def require_unchanged(known: Mapping[str, Any], made_from: Iterator[tuple[str, str, str]], *, study: str) -> None:
    """Raises SearchError if what was stored is not what trials are made from now."""
    for key, what, now in made_from:
        if known.get(key, now) != now:
            raise SearchError(
                f"study {study}: the {what} are not those its trials were made from ({known[key]}, now {now}); restore "
                "them, or give the study another name"
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
    """The Optuna study of that name; raises NotRunYetError if it is not there and not to be made."""
    exists = study.name in optuna.get_all_study_names(storage)
    if exists and create and _is_blank(study, storage):
        optuna.delete_study(storage=storage, study_name=study.name)
        exists = False
    if not exists:
        if not create:
            raise NotRunYetError(f"study {study.name} has not been run yet: its storage does not hold it; {START}")
        directions = [DIRECTIONS[objective] for objective in study.search.objectives]
        made = optuna.create_study(storage=storage, study_name=study.name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made.set_metric_names(list(study.search.objectives))
        made.set_user_attr("id", uuid.uuid4().hex)
        made.set_user_attr("study", dump_identity(study))
    return optuna.load_study(storage=storage, study_name=study.name)


def _is_blank(study: StudyConfig, storage: RDBStorage) -> bool:
    """Whether the study was begun with other settings and no trial was made yet, so that nothing is lost with it."""
    known = optuna.load_study(storage=storage, study_name=study.name)
    return not known.get_trials(deepcopy=False) and known.user_attrs.get("study") != dump_identity(study)


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Raises KdsearchError where a newer release wrote it."""
    return read_record(
        trial.number,
        trial.user_attrs,
        running=trial.state == TrialState.RUNNING,
        started=_utc(trial.datetime_start),
        ended=_utc(trial.datetime_complete),
    )


def _utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    return moment.astimezone(datetime.UTC) if moment else None
