"""The Optuna study that holds a study's trials: opened, or made."""

from __future__ import annotations

import uuid
import warnings
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage

from kdsearch.config.identity import dump_identity
from kdsearch.config.search import Objective
from kdsearch.config.study import StudyConfig
from kdsearch.errors import NotRunYetError

DIRECTIONS: dict[Objective, Literal["maximize", "minimize"]] = {
    "dice": "maximize",
    "params": "minimize",
    "macs": "minimize",
    "latency_ms": "minimize",
    "empty_share": "maximize",
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
