"""Confirmations in the Optuna database: each is an Optuna study with its plan and one trial per training run."""

from __future__ import annotations

import datetime
import getpass
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial
from pydantic import TypeAdapter

from kdsearch.campaign.storage import open_storage, storage_errors
from kdsearch.confirm.plan import Plan, Repeat, dump_plan, read_plan
from kdsearch.data.dataset import Dataset, Splits, foreground_of, group_of
from kdsearch.errors import SearchError
from kdsearch.files.schema import Schema, unchanged
from kdsearch.statistics.confirmation import Kind
from kdsearch.trials.recipe import Recipe, dump_recipe
from kdsearch.trials.scores import Scores, Singles, dump_scores, read_scores
from kdsearch.version import __version__, commit_of_checkout


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredImages:
    """The images that networks are scored on, in the data set's order: only the locked test images, or all others."""

    groups: tuple[str, ...]
    sources: tuple[str, ...]
    labels: tuple[str, ...]
    """An empty string for an image that has none."""
    lesion_fraction: Singles
    """Fraction of the image's area; 0 for negative images."""
    folds: tuple[tuple[int, ...], ...]
    """The fold of each image, for each repetition."""
    test_to_train: float
    """Ratio of scored to training images, only those with a lesion; the mean over folds."""


def describe_images(
    dataset: Dataset, positions: Sequence[int], repetitions: Sequence[Sequence[Splits]]
) -> ScoredImages:
    """Describes the images at these positions, which each repetition's folds cover."""
    infos = [dataset.infos[position] for position in positions]
    masks = dataset.masks[np.asarray(positions)]
    return ScoredImages(
        groups=tuple(group_of(info) for info in infos),
        sources=tuple(info.source for info in infos),
        labels=tuple(info.label or "" for info in infos),
        lesion_fraction=tuple(float(value) for value in foreground_of(masks).reshape(len(masks), -1).mean(axis=1)),
        folds=tuple(_fold_of_each(positions, folds) for folds in repetitions),
        test_to_train=fmean(_test_to_train(dataset, fold) for folds in repetitions for fold in folds),
    )


def _test_to_train(dataset: Dataset, fold: Splits) -> float:
    scored, trained = (int(dataset.has_foreground[list(part)].sum()) for part in (fold.validation, fold.train))
    return scored / trained


def _fold_of_each(positions: Sequence[int], folds: Sequence[Splits]) -> tuple[int, ...]:
    fold_of = {position: fold for fold, splits in enumerate(folds) for position in splits.validation}
    return tuple(fold_of[position] for position in positions)


_IMAGES = TypeAdapter(ScoredImages)
IMAGES_SCHEMA = Schema(what="confirmation's images", upgrades=(unchanged,))


def dump_images(images: ScoredImages) -> str:
    """Serializes the images' description, which is stored with a sealed plan."""
    return json.dumps(IMAGES_SCHEMA.stamped(_IMAGES.dump_python(images, mode="json")))


def read_images(text: str) -> ScoredImages:
    """Reads a stored description; raises KdsearchError if a newer release wrote it."""
    return _IMAGES.validate_json(json.dumps(IMAGES_SCHEMA.upgraded(json.loads(text))))


TEACHER = "teacher"
"""Used instead of an arm's id for the teacher of a fold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """The result of one arm, or of the teacher, in one fold."""

    arm: str
    repetition: int
    fold: int
    """Both from 0."""
    scores: Scores | None
    """On the fold's images; None if training failed."""
    reason: str = ""
    """Why it failed."""


class ConfirmStore:
    """One sealed plan in the Optuna database, with its results."""

    def __init__(self, optuna_study: optuna.Study, plan: Plan, *, number: int) -> None:
        self.plan = plan
        self.number = number
        """Counts the study's confirmations, or uses of its test images, from 1."""
        self._study = optuna_study

    @property
    def name(self) -> str:
        """The Optuna study's name."""
        return self._study.study_name

    @property
    def sealed(self) -> str:
        """When the plan was sealed, in UTC, as ISO 8601."""
        return str(self._study.user_attrs["sealed"])

    @property
    def receipt(self) -> dict[str, str]:
        """When, by whom and with which version the plan was sealed."""
        return {key: str(self._study.user_attrs[key]) for key in ("sealed", "by", "commit", "kdsearch", "digest")}

    def results(self) -> dict[tuple[str, int, int], FoldResult]:
        """All results by arm, repetition and fold; if a training run has several, the first counts."""
        found: dict[tuple[str, int, int], FoldResult] = {}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)):
            kept = SCHEMA.upgraded(trial.user_attrs)
            key = str(kept["arm"]), int(kept["repetition"]), int(kept["fold"])
            scores = read_scores(kept["scores"]) if "scores" in kept else None
            result = FoldResult(
                arm=key[0], repetition=key[1], fold=key[2], scores=scores, reason=str(kept.get("reason", ""))
            )
            found.setdefault(key, result)
        return found

    def complete(self) -> bool:
        """Whether all training runs of the plan have ended."""
        results, dropped = self.results(), self.dropped()
        return all(
            repeat.arm.id in dropped or (repeat.arm.id, repeat.repetition, repeat.fold) in results
            for repeat in self.plan.repeats()
        )

    def keep(self, arm: str, repetition: int, fold: int, scores: Scores, *, recipe: Recipe | None) -> FoldResult:
        """Stores the scores of a training run; ``recipe`` is the trained student's, with its seed."""
        stored = {"scores": dump_scores(scores)} | ({"recipe": dump_recipe(recipe)} if recipe is not None else {})
        self._add(arm, repetition, fold, stored, value=scores.dice)
        return FoldResult(arm=arm, repetition=repetition, fold=fold, scores=scores)

    def fail(self, repeat: Repeat, reason: str, *, traceback: str) -> FoldResult:
        stored = {"reason": reason} | ({"traceback": traceback} if traceback else {})
        self._add(repeat.arm.id, repeat.repetition, repeat.fold, stored, value=None)
        return FoldResult(arm=repeat.arm.id, repetition=repeat.repetition, fold=repeat.fold, scores=None, reason=reason)

    def bind_images(self, images: ScoredImages) -> None:
        """Stores the description of the images, which the answers need."""
        self._study.set_user_attr("images", dump_images(images))

    def images(self) -> ScoredImages:
        return read_images(self._study.user_attrs["images"])

    def drop(self, dropped: Mapping[str, str]) -> None:
        """Stores which arms were dropped early, with the reasons."""
        self._study.set_user_attr("dropped", json.dumps(dropped))

    def dropped(self) -> dict[str, str]:
        """The reason for each arm that was dropped early."""
        return dict(json.loads(self._study.user_attrs.get("dropped", "{}")))

    def _add(self, arm: str, repetition: int, fold: int, stored: dict[str, str], *, value: float | None) -> None:
        params: dict[str, str | int] = {"arm": arm, "repetition": repetition, "fold": fold}
        partitions = self.plan.partitions
        distributions: dict[str, BaseDistribution] = {
            "arm": CategoricalDistribution([TEACHER, *(one.id for one in self.plan.arms)]),
            "repetition": CategoricalDistribution(list(range(len(partitions)))),
            "fold": CategoricalDistribution(list(range(len(partitions[0])))),
        }
        trial = create_trial(
            state=TrialState.FAIL if value is None or value != value else TrialState.COMPLETE,  # noqa: PLR0124 - NaN differs from itself
            value=None if value is None or value != value else value,  # noqa: PLR0124
            params=params,
            distributions=distributions,
            user_attrs=SCHEMA.stamped(params | stored),
        )
        self._study.add_trial(trial)


SCHEMA = Schema(what="repeat", upgrades=())


def sealed_plans(url: str, study: str, *, study_id: str, kind: Kind = "confirm") -> list[ConfirmStore]:
    """The study's sealed plans of this kind, latest last; raises SearchError if the database cannot be opened."""
    with storage_errors(study):
        return _sealed(open_storage(url), study, study_id=study_id, kind=kind)


def open_confirmation(url: str, study: str, *, study_id: str, kind: Kind = "confirm") -> ConfirmStore | None:
    """The latest of ``sealed_plans``; None if there is none."""
    found = sealed_plans(url, study, study_id=study_id, kind=kind)
    return found[-1] if found else None


def seal(url: str, study: str, plan: Plan, images: ScoredImages, *, study_id: str) -> ConfirmStore:
    """Stores the plan before training starts."""
    with storage_errors(study):
        storage = open_storage(url)
        number = len(_sealed(storage, study, study_id=study_id, kind=plan.kind)) + 1
        taken = set(optuna.get_all_study_names(storage))
        names = (f"{study}.{plan.kind}-{index}" for index in range(1, len(taken) + 2))
        name = next(name for name in names if name not in taken)
        made = optuna.create_study(storage=storage, study_name=name, direction="maximize")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made.set_metric_names(["dice"])
        store = ConfirmStore(made, plan, number=number)
        store.bind_images(images)
        for key, value in {
            "of": study_id,
            "kdsearch": __version__,
            "by": _user(),
            "commit": commit_of_checkout(),
            "sealed": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "digest": plan.digest,
            "plan": dump_plan(plan),  # written last; a plan without it is not sealed
        }.items():
            made.set_user_attr(key, value)
    return store


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # such as a user id without a name in a container
        return str(os.getuid())


def _sealed(storage: BaseStorage, study: str, *, study_id: str, kind: Kind) -> list[ConfirmStore]:
    """The sealed plans in the order in which they were sealed."""
    found: list[ConfirmStore] = []
    prefix = f"{study}.{kind}-"
    names = [name for name in optuna.get_all_study_names(storage) if name.startswith(prefix)]
    names = [name for name in names if name.removeprefix(prefix).isdigit()]
    for name in sorted(names, key=lambda name: int(name.removeprefix(prefix))):
        known = optuna.load_study(storage=storage, study_name=name)
        attributes = known.user_attrs
        if "plan" not in attributes or attributes.get("of") != study_id:
            continue
        plan = read_plan(attributes["plan"])
        if plan.digest != attributes["digest"]:
            raise SearchError(
                f"study {study}: the plan of {name} was changed after it was sealed (digest was "
                f"{attributes['digest']}, now {plan.digest}); its results cannot be trusted"
            )
        found.append(ConfirmStore(known, plan, number=len(found) + 1))
    return found
