"""Divides images into training, validation and test images, and into folds."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from kdsearch.config.data import SplitConfig
from kdsearch.data.dataset import ACROSS, Dataset, Splits, group_of
from kdsearch.errors import DataError
from kdsearch.files.digests import digest

logger = logging.getLogger(__name__)

ANEW = "set given: ignore under data.split to let kdsearch split the images"
NAMED = 4
"""An error lists at most this many groups."""


def split(dataset: Dataset, config: SplitConfig, *, train_on_negatives: bool) -> Splits:
    """Splits images into the three parts; raises DataError if a part would have no lesion.

    Keeps the parts that the data set names, unless the config ignores them. If the groups are so few or
    unequal that a part gets no lesion, each part first gets one group with a lesion.
    """
    shares = {"train": 1 - config.validation - config.test, "validation": config.validation, "test": config.test}
    every, has_foreground = range(len(dataset.infos)), dataset.has_foreground
    given = {} if config.given == "ignore" else _given(dataset)
    parts = _completed(dataset, given, shares, seed=config.seed)
    if given:
        _require_foreground(parts, has_foreground)
    elif not all(has_foreground[positions].any() for positions in parts.values()):
        first = _first_groups(dataset, has_foreground, shares, seed=config.seed)
        parts = share_out(dataset, every, shares, seed=config.seed, first=first)
    if not train_on_negatives:
        parts["train"] = [position for position in parts["train"] if has_foreground[position]]
    return splits_of(dataset, **parts)


def _given(dataset: Dataset) -> dict[int, str]:
    """Returns the part of each image that the data set puts in one; empty if it names only training images.

    Raises DataError if it puts images of one group, such as a patient, in different parts; near-duplicates
    in different parts are only reported, because published splits have them.
    """
    found = {place: info.part for place, info in enumerate(dataset.infos) if info.part is not None}
    if set(found.values()) <= {"train"}:
        return {}
    parts: dict[str, set[str]] = defaultdict(set)
    for place, part in found.items():
        parts[group_of(dataset.infos[place])].add(part)
    ids, apart = {info.id for info in dataset.infos}, {group for group, names in parts.items() if len(names) > 1}
    for group in sorted(apart):
        if not _is_of_near_duplicates(group, ids):
            name = group.removeprefix(ACROSS).replace("/group/", "/", 1)
            raise DataError(
                f"data.split: the data set has images of group {name} in {' and in '.join(sorted(parts[group]))}, so "
                f"scores would be too high; put them in one part, or {ANEW}"
            )
    if apart:
        logger.warning(
            "near-duplicates lie in different parts of the data set's own split (%d groups, such as that of %s), so "
            "scores are too high; to compare students fairly, %s",
            len(apart), min(apart).removeprefix(ACROSS), ANEW,
        )  # fmt: skip
    return dict(found)


def _completed(
    dataset: Dataset, given: Mapping[int, str], shares: Mapping[str, float], *, seed: int
) -> dict[str, list[int]]:
    """Shares out the images without a part over all parts, and takes the parts that none is given from training."""
    known = {group_of(dataset.infos[place]): part for place, part in given.items()}
    free = [place for place in range(len(dataset.infos)) if place not in given]
    parts = share_out(dataset, free, shares, seed=seed, first=known)
    for place, part in given.items():
        parts[part].append(place)
    for lacking in sorted(set(shares) - set(given.values())) if given else ():
        own = [place for place in parts["train"] if place in given]
        taken = share_out(dataset, own, {"train": 1 - shares[lacking], lacking: shares[lacking]}, seed=seed)[lacking]
        parts[lacking] += taken
        parts["train"] = sorted(set(parts["train"]) - set(taken))
    return parts


def _require_foreground(parts: Mapping[str, list[int]], has_foreground: npt.NDArray[np.bool_]) -> None:
    for part, positions in parts.items():
        if not has_foreground[positions].any():
            raise DataError(
                f"data.split: the data set's own split has no {part} image with a lesion; correct it, or {ANEW}"
            )


def _first_groups(
    dataset: Dataset, has_foreground: npt.NDArray[np.bool_], shares: Mapping[str, float], *, seed: int
) -> dict[str, str]:
    """Assigns one group with a lesion to each part: the remaining group closest in size to the part's share.

    The smallest part chooses first. Raises DataError if there are fewer such groups than parts.
    """
    if not has_foreground.any():
        raise DataError(
            f"data.sources: none of the {len(has_foreground)} masks has a lesion; are these files masks, with the "
            "lesion brighter than the background?"
        )
    sizes = Counter(group_of(info) for info in dataset.infos)
    held = {group_of(dataset.infos[int(position)]) for position in np.flatnonzero(has_foreground)}
    if len(held) < len(shares):
        raise DataError(_too_few(dataset, sizes, held, parts=len(shares)))
    first: dict[str, str] = {}
    for part in sorted(shares, key=lambda name: (shares[name], name)):
        wanted = shares[part] * sizes.total()
        left = sorted(held - first.keys(), key=lambda group: (abs(sizes[group] - wanted), _rank(group, seed)))
        first[left[0]] = part
    return first


def _too_few(dataset: Dataset, sizes: Counter[str], held: set[str], *, parts: int) -> str:
    if len(dataset.infos) < parts:
        return f"data.split: {len(dataset.infos)} images are too few for {parts} parts; add images"
    if len(held) == len(sizes) == len(dataset.infos):
        return f"data.split: {len(held)} images with a lesion are too few for {parts} parts; add images"
    ids = {info.id for info in dataset.infos}
    alike = any(sizes[group] > 1 and _is_of_near_duplicates(group, ids) for group in held)
    named = ", ".join(
        f"{group.removeprefix(ACROSS).replace('/group/', '/', 1)} ({sizes[group]} images)"
        for group in sorted(held)[:NAMED]
    )
    why = (
        "near-duplicates form one group; if these are video frames or crops of one image, add other images"
        if alike
        else "add images of other groups, such as patients, or define smaller groups if they may be split"
    )
    return (
        f"data.split: a group is never split, and only {len(held)} of {len(sizes)} groups have a lesion, too few for "
        f"{parts} parts: {named}; {why}"
    )


def _is_of_near_duplicates(group: str, ids: set[str]) -> bool:
    """Returns whether the group is named after its first image, so kdsearch made it."""
    return group.removeprefix(ACROSS) in ids or group.partition("/group/")[2] in ids


def splits_of(dataset: Dataset, *, train: Iterable[int], validation: Iterable[int], test: Iterable[int]) -> Splits:
    """Makes a split of these positions, with a fingerprint of them and the images."""
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
    """Distributes positions over parts: groups stay whole, and each part gets its share of each label.

    ``shares`` are the parts' fractions by name, with the sum 1; ``first`` fixes the part of some groups.
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
    """Sorts groups by source and by their most frequent label."""
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group, positions in members.items():
        labels = Counter(str(dataset.infos[position].label) for position in positions)
        label = min(labels, key=lambda name: (-labels[name], name))
        strata[dataset.infos[positions[0]].source, label].append(group)
    return dict(sorted(strata.items()))


def _rank(group: str, seed: int) -> str:
    """Sort key for a pseudorandom order that depends on no random number generator."""
    return hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()


def _share_out(
    groups: list[str],
    members: dict[str, list[int]],
    shares: Mapping[str, float],
    parts: dict[str, list[int]],
    fixed: Mapping[str, str],
) -> None:
    """Gives each group of a stratum to the part that is furthest below its shares of the stratum and of all images."""
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
    """Positions of all images except the locked test images, in order."""
    locked = set(splits.test)
    return tuple(position for position in range(len(dataset.infos)) if position not in locked)


def all_but_locked(dataset: Dataset, splits: Splits, *, train_on_negatives: bool) -> Splits:
    """Makes a split that validates on the locked test images and trains on all others."""
    every, has_foreground = development_images(dataset, splits), dataset.has_foreground
    train = [place for place in every if train_on_negatives or has_foreground[place]]
    return splits_of(dataset, train=train, validation=splits.test, test=())


def folds(dataset: Dataset, splits: Splits, *, count: int, seed: int, train_on_negatives: bool) -> tuple[Splits, ...]:
    """Makes ``count`` splits, each with one fold as validation images and the others as training images.

    Groups stay whole, and every fold gets its share of each source and label. Raises DataError if a fold
    would have no lesion.
    """
    names = [str(number) for number in range(1, count + 1)]
    parts = share_out(dataset, development_images(dataset, splits), dict.fromkeys(names, 1 / count), seed=seed)
    return _splits(dataset, splits, parts, train_on_negatives=train_on_negatives)


def training_folds(dataset: Dataset, splits: Splits, *, count: int) -> tuple[Splits, ...]:
    """Makes ``count`` splits that each leave out one part of the training images, and change nothing else.

    Groups stay whole. Raises DataError if a split would train on no lesion.
    """
    names = [str(number) for number in range(1, count + 1)]
    parts = share_out(dataset, splits.train, dict.fromkeys(names, 1 / count), seed=0)
    found, has_foreground = [], dataset.has_foreground
    for part in parts.values():
        train = sorted(set(splits.train) - set(part))
        if not part or not any(has_foreground[place] for place in train):
            raise DataError(
                f"teacher.ensemble: {len(splits.train)} training images are too few for {count} members that differ by "
                "folds; use fewer members, or ensemble_by: seeds"
            )
        found.append(splits_of(dataset, train=train, validation=splits.validation, test=splits.test))
    return tuple(found)


def folds_by_source(dataset: Dataset, splits: Splits, *, train_on_negatives: bool) -> tuple[Splits, ...]:
    """Makes one split per source, with the source's images as validation images.

    Training leaves out images whose group has members in that source. Raises DataError if there is only one source.
    """
    parts: dict[str, list[int]] = {}
    for position in development_images(dataset, splits):
        parts.setdefault(dataset.infos[position].source, []).append(position)
    if len(parts) < 2:
        raise DataError(
            f"confirm.leave_one_source_out: needs at least two sources, got one, {next(iter(parts))}; add a source to "
            "data.sources, or remove leave_one_source_out"
        )
    return _splits(dataset, splits, dict(sorted(parts.items())), train_on_negatives=train_on_negatives)


def _splits(
    dataset: Dataset, splits: Splits, parts: dict[str, list[int]], *, train_on_negatives: bool
) -> tuple[Splits, ...]:
    has_foreground, every = dataset.has_foreground, development_images(dataset, splits)
    found = []
    for name, fold in parts.items():
        groups = {group_of(dataset.infos[position]) for position in fold}
        others: Iterable[int] = (place for place in every if group_of(dataset.infos[place]) not in groups)
        train = [place for place in others if train_on_negatives or has_foreground[place]]
        for what, positions in (("validation", fold), ("training", train)):
            if not any(has_foreground[place] for place in positions):
                raise DataError(
                    f"confirm: fold {name} of {len(parts)} has no {what} image with a lesion; lower confirm.folds, or "
                    "add images"
                )
        found.append(splits_of(dataset, train=train, validation=fold, test=splits.test))
    return tuple(found)
