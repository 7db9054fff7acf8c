"""What the answers of a confirmation need to know of its images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from pydantic import TypeAdapter

from kdsearch.data.dataset import Dataset, Splits, group_of
from kdsearch.files.schema import Schema, unchanged
from kdsearch.trials.scores import Singles


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredImages:
    """The images that score, in the order of the data set: all but the locked test's, or those alone."""

    groups: tuple[str, ...]
    sources: tuple[str, ...]
    labels: tuple[str, ...]
    """Empty where an image has none."""
    lesion_fraction: Singles
    """Of the image's area; 0 where there is no lesion."""
    folds: tuple[tuple[int, ...], ...]
    """For each repetition the fold of each image."""
    test_to_train: float
    """Images that score over images that train, both with a lesion; the mean over folds."""


def describe_images(
    dataset: Dataset, positions: Sequence[int], repetitions: Sequence[Sequence[Splits]]
) -> ScoredImages:
    """Of the images at those positions, which each repetition's folds cover."""
    infos = [dataset.infos[position] for position in positions]
    masks = dataset.masks[np.asarray(positions)]
    return ScoredImages(
        groups=tuple(group_of(info) for info in infos),
        sources=tuple(info.source for info in infos),
        labels=tuple(info.label or "" for info in infos),
        lesion_fraction=tuple(float(value) for value in (masks > 0).reshape(len(masks), -1).mean(axis=1)),
        folds=tuple(_fold_of_each(positions, folds) for folds in repetitions),
        test_to_train=fmean(_test_to_train(dataset, fold) for folds in repetitions for fold in folds),
    )


def _test_to_train(dataset: Dataset, fold: Splits) -> float:
    scored, trained = (int(dataset.has_lesion[list(part)].sum()) for part in (fold.validation, fold.train))
    return scored / trained


def _fold_of_each(positions: Sequence[int], folds: Sequence[Splits]) -> tuple[int, ...]:
    fold_of = {position: fold for fold, splits in enumerate(folds) for position in splits.validation}
    return tuple(fold_of[position] for position in positions)


_IMAGES = TypeAdapter(ScoredImages)
SCHEMA = Schema(what="confirmation's images", upgrades=(unchanged,))


def dump_images(images: ScoredImages) -> str:
    """As they are stored with a sealed plan."""
    return json.dumps(SCHEMA.stamped(_IMAGES.dump_python(images, mode="json")))


def read_images(text: str) -> ScoredImages:
    """Stored images; raises KdsearchError if a newer release wrote them."""
    return _IMAGES.validate_json(json.dumps(SCHEMA.upgraded(json.loads(text))))
