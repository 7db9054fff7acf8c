"""Shares images out to train, validation and the locked test: by group, by label, the same on every machine."""

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


def split(dataset: Dataset, config: SplitConfig, *, train_without_lesion: bool) -> Splits:
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
    if not train_without_lesion:
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
