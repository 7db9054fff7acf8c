"""How images are divided into training, validation, test and folds."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from kdsearch.config.data import SplitConfig
from kdsearch.data.dataset import ACROSS, Dataset, Splits, group_of
from kdsearch.errors import DataError
from kdsearch.files.digests import digest

NAMED = 4
"""Groups that an error names."""


def split(dataset: Dataset, config: SplitConfig, *, train_on_negatives: bool) -> Splits:
    """The three parts; raises DataError that says why if one of them would hold no lesion.

    Where groups are so few or unequal that sharing them out one by one leaves a part without a lesion, each part is
    given one group first.
    """
    shares = {"train": 1 - config.validation - config.test, "validation": config.validation, "test": config.test}
    every, has_lesion = range(len(dataset.infos)), dataset.has_lesion
    parts = share_out(dataset, every, shares, seed=config.seed)
    if not _each_holds_one(parts, has_lesion):
        first = _first_groups(dataset, has_lesion, shares, seed=config.seed)
        parts = share_out(dataset, every, shares, seed=config.seed, first=first)
    if not train_on_negatives:
        parts["train"] = [position for position in parts["train"] if has_lesion[position]]
    return splits_of(dataset, **parts)


def _each_holds_one(parts: Mapping[str, list[int]], has_lesion: npt.NDArray[np.bool_]) -> bool:
    """Whether each part holds an image with a lesion."""
    return all(has_lesion[positions].any() for positions in parts.values())


def _first_groups(
    dataset: Dataset, has_lesion: npt.NDArray[np.bool_], shares: Mapping[str, float], *, seed: int
) -> dict[str, str]:
    """A group with a lesion for each part, by group: of those left, the one nearest in size to the part's share.

    The smallest part chooses first. Raises DataError if there are fewer such groups than parts.
    """
    if not has_lesion.any():
        raise DataError(
            f"data.sources: none of {len(has_lesion)} masks holds a lesion, so there is nothing to learn; are they "
            "masks, with the lesion brighter than the background?"
        )
    sizes = Counter(group_of(info) for info in dataset.infos)
    held = {group_of(dataset.infos[int(position)]) for position in np.flatnonzero(has_lesion)}
    if len(held) < len(shares):
        raise DataError(_too_few(dataset, sizes, held, parts=len(shares)))
    first: dict[str, str] = {}
    for part in sorted(shares, key=lambda name: (shares[name], name)):
        wanted = shares[part] * sizes.total()
        left = sorted(held - first.keys(), key=lambda group: (abs(sizes[group] - wanted), _rank(group, seed)))
        first[left[0]] = part
    return first


def _too_few(dataset: Dataset, sizes: Counter[str], held: set[str], *, parts: int) -> str:
    """Why images cannot be split though there are enough."""
    if len(dataset.infos) < parts:
        return f"data.split: {len(dataset.infos)} images are too few for {parts} parts; add images"
    if len(held) == len(sizes) == len(dataset.infos):
        return f"data.split: {len(held)} images with a lesion are too few for {parts} parts; add images"
    ids = {info.id for info in dataset.infos}
    alike = any(sizes[group] > 1 and _is_of_near_duplicates(group, ids) for group in held)
    named = ", ".join(f"{_short(group)} ({sizes[group]} images)" for group in sorted(held)[:NAMED])
    why = (
        "near-duplicates are one group; if they are frames of videos, or crops of one picture, add other pictures"
        if alike
        else "add images of other groups, such as patients, or make groups smaller if they may be split"
    )
    return (
        f"data.split: groups stay in one part, and only {len(held)} of {len(sizes)} groups hold a lesion, which is too "
        f"few for {parts} parts: {named}; {why}"
    )


def _is_of_near_duplicates(group: str, ids: set[str]) -> bool:
    """Whether it is called by its first image, and so was not given."""
    return group.removeprefix(ACROSS) in ids or group.partition("/group/")[2] in ids


def _short(group: str) -> str:
    return group.removeprefix(ACROSS).replace("/group/", "/", 1)


def splits_of(dataset: Dataset, *, train: Iterable[int], validation: Iterable[int], test: Iterable[int]) -> Splits:
    """Those positions in order, under a fingerprint of them and the images."""
    ordered = {
        "train": tuple(sorted(train)), "validation": tuple(sorted(validation)), "test": tuple(sorted(test))
    }  # fmt: skip
    return Splits(**ordered, fingerprint=digest(dataset.fingerprint, ordered))


def share_out(
    dataset: Dataset,
    positions: Iterable[int],
    shares: Mapping[str, float],
    *,
    seed: int,
    first: Mapping[str, str] | None = None,
) -> dict[str, list[int]]:
    """Those positions by the part they go to: groups stay whole, and each part gets its share of each label.

    ``shares`` are the parts' fractions by name, 1 together; ``first`` are the parts of groups that are not free.
    """
    fixed = first or {}
    members: dict[str, list[int]] = defaultdict(list)
    for position in positions:
        members[group_of(dataset.infos[position])].append(position)
    parts: dict[str, list[int]] = {part: [] for part in shares}
    for groups in _strata(dataset, members).values():
        ordered = sorted(groups, key=lambda group: (group not in fixed, _rank(group, seed)))
        _share_out(ordered, members, shares, parts, fixed)
    return parts


def _strata(dataset: Dataset, members: dict[str, list[int]]) -> dict[tuple[str, str], list[str]]:
    """Groups by source and by the label most of their images have."""
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group, positions in members.items():
        labels = Counter(str(dataset.infos[position].label) for position in positions)
        label = min(labels, key=lambda name: (-labels[name], name))
        strata[dataset.infos[positions[0]].source, label].append(group)
    return dict(sorted(strata.items()))


def _rank(group: str, seed: int) -> str:
    """An order that looks random and needs no random number generator."""
    return hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()


def _share_out(
    groups: list[str],
    members: dict[str, list[int]],
    shares: Mapping[str, float],
    parts: dict[str, list[int]],
    fixed: Mapping[str, str],
) -> None:
    """Gives each group of one stratum to the part that lacks most of its share, of the stratum and of all images."""
    before = {part: len(positions) for part, positions in parts.items()}
    total_before = sum(before.values())
    total = 0
    for group in groups:
        total += len(members[group])

        def lack(part: str, total: int = total) -> float:
            here = shares[part] * total - (len(parts[part]) - before[part])
            overall = shares[part] * (total_before + total) - len(parts[part])
            return here + overall

        parts[fixed.get(group) or max(shares, key=lack)].extend(members[group])


def development_images(dataset: Dataset, splits: Splits) -> tuple[int, ...]:
    """Positions of all images but the locked test's, in order."""
    locked = set(splits.test)
    return tuple(position for position in range(len(dataset.infos)) if position not in locked)


def all_but_locked(dataset: Dataset, splits: Splits, *, train_on_negatives: bool) -> Splits:
    """A split that trains on all but the locked test images, and whose validation images are those."""
    every, has_lesion = development_images(dataset, splits), dataset.has_lesion
    train = [place for place in every if train_on_negatives or has_lesion[place]]
    return splits_of(dataset, train=train, validation=splits.test, test=())


def folds(dataset: Dataset, splits: Splits, *, count: int, seed: int, train_on_negatives: bool) -> tuple[Splits, ...]:
    """Splits whose validation images are one of ``count`` folds and whose training images are the others.

    Groups stay whole, and every fold gets its share of each source and label. Raises DataError where a fold would hold
    no lesion.
    """
    names = [str(number) for number in range(1, count + 1)]
    parts = share_out(dataset, development_images(dataset, splits), dict.fromkeys(names, 1 / count), seed=seed)
    return _splits(dataset, splits, parts, train_on_negatives=train_on_negatives)


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
                "folds; write fewer, or ensemble_by: seeds"
            )
        found.append(splits_of(dataset, train=train, validation=splits.validation, test=splits.test))
    return tuple(found)


def folds_by_source(dataset: Dataset, splits: Splits, *, train_on_negatives: bool) -> tuple[Splits, ...]:
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
    return _splits(dataset, splits, dict(sorted(parts.items())), train_on_negatives=train_on_negatives)


def _splits(
    dataset: Dataset, splits: Splits, parts: dict[str, list[int]], *, train_on_negatives: bool
) -> tuple[Splits, ...]:
    has_lesion, every = dataset.has_lesion, development_images(dataset, splits)
    found = []
    for name, fold in parts.items():
        groups = {group_of(dataset.infos[position]) for position in fold}
        others: Iterable[int] = (place for place in every if group_of(dataset.infos[place]) not in groups)
        train = [place for place in others if train_on_negatives or has_lesion[place]]
        for what, positions in (("holds", fold), ("leaves", train)):
            if not any(has_lesion[place] for place in positions):
                raise DataError(
                    f"confirm: fold {name} of {len(parts)} {what} no image with a lesion; lower confirm.folds, or add "
                    "images"
                )
        found.append(splits_of(dataset, train=train, validation=fold, test=splits.test))
    return tuple(found)
