"""Folds of the images that are not locked away: each is left out once, and scored by what the others taught."""

from __future__ import annotations

from collections.abc import Iterable

from kdsearch.data.dataset import Dataset, Splits, group_of
from kdsearch.data.splits import share_out, splits_of
from kdsearch.errors import DataError


def development_images(dataset: Dataset, splits: Splits) -> tuple[int, ...]:
    """Positions of all images but the locked test's, in order."""
    locked = set(splits.test)
    return tuple(position for position in range(len(dataset.infos)) if position not in locked)


def all_but_locked(dataset: Dataset, splits: Splits, *, train_without_lesion: bool) -> Splits:
    """A split that trains on all but the locked test images, and whose validation images are those."""
    every, has_lesion = development_images(dataset, splits), dataset.has_lesion
    train = [place for place in every if train_without_lesion or has_lesion[place]]
    return splits_of(dataset, train=train, validation=splits.test, test=())


def folds(dataset: Dataset, splits: Splits, *, count: int, seed: int, train_without_lesion: bool) -> tuple[Splits, ...]:
    """Splits whose validation images are one of ``count`` folds and whose training images are the others.

    Groups stay whole, and every fold gets its share of each source and label. Raises DataError where a fold would hold
    no lesion.
    """
    names = [str(number) for number in range(1, count + 1)]
    parts = share_out(dataset, development_images(dataset, splits), dict.fromkeys(names, 1 / count), seed=seed)
    return _splits(dataset, splits, parts, train_without_lesion=train_without_lesion)


def training_folds(dataset: Dataset, splits: Splits, *, count: int) -> tuple[Splits, ...]:
    """Splits that each lack one of ``count`` parts of the training images; the other images stay where they are.

    Groups stay whole. Raises DataError where one would be left no lesion.
    """
    names = [str(number) for number in range(1, count + 1)]
    parts = share_out(dataset, splits.train, dict.fromkeys(names, 1 / count), seed=0)
    found, has_lesion = [], dataset.has_lesion
    for part in parts.values():
        train = sorted(set(splits.train) - set(part))
        if not part or not any(has_lesion[place] for place in train):
            raise DataError(
                f"teacher.ensemble: {len(splits.train)} training images are too few for {count} members that differ by "
                "folds; write fewer, or members: seeds"
            )
        found.append(splits_of(dataset, train=train, validation=splits.validation, test=splits.test))
    return tuple(found)


def folds_by_source(dataset: Dataset, splits: Splits, *, train_without_lesion: bool) -> tuple[Splits, ...]:
    """Splits whose validation images are one source's.

    An image whose group has members in that source trains nothing there. Raises DataError where there is one source.
    """
    parts: dict[str, list[int]] = {}
    for position in development_images(dataset, splits):
        parts.setdefault(dataset.infos[position].source, []).append(position)
    if len(parts) < 2:
        raise DataError(
            f"confirm.leave_one_source_out: the images have one source, {next(iter(parts))}; add another to "
            "data.sources, or leave it out"
        )
    return _splits(dataset, splits, dict(sorted(parts.items())), train_without_lesion=train_without_lesion)


def _splits(
    dataset: Dataset, splits: Splits, parts: dict[str, list[int]], *, train_without_lesion: bool
) -> tuple[Splits, ...]:
    has_lesion, every = dataset.has_lesion, development_images(dataset, splits)
    found = []
    for name, fold in parts.items():
        groups = {group_of(dataset.infos[position]) for position in fold}
        others: Iterable[int] = (place for place in every if group_of(dataset.infos[place]) not in groups)
        train = [place for place in others if train_without_lesion or has_lesion[place]]
        for what, positions in (("holds", fold), ("leaves", train)):
            if not any(has_lesion[place] for place in positions):
                raise DataError(
                    f"confirm: fold {name} of {len(parts)} {what} no image with a lesion; lower confirm.folds, or add "
                    "images"
                )
        found.append(splits_of(dataset, train=train, validation=fold, test=splits.test))
    return tuple(found)
