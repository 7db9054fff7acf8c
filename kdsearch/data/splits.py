"""Shares images out to train, validation and the locked test: by group, by label, the same on every machine."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from kdsearch.config.data import SplitConfig
from kdsearch.data.dataset import Dataset, Splits, group_of
from kdsearch.errors import DataError
from kdsearch.files.digests import digest


def split(dataset: Dataset, config: SplitConfig, *, train_without_lesion: bool) -> Splits:
    """The three parts; raises DataError where one of them would hold no lesion."""
    shares = {"train": 1 - config.validation - config.test, "validation": config.validation, "test": config.test}
    parts = share_out(dataset, range(len(dataset.infos)), shares, seed=config.seed)
    has_lesion = dataset.has_lesion
    if not train_without_lesion:
        parts["train"] = [position for position in parts["train"] if has_lesion[position]]
    for part, positions in parts.items():
        if not any(has_lesion[position] for position in positions):
            raise DataError(
                f"the {part} split holds no image with a lesion: {len(dataset.infos)} images are too few for data.split"
            )
    return splits_of(dataset, **parts)


def splits_of(dataset: Dataset, *, train: Iterable[int], validation: Iterable[int], test: Iterable[int]) -> Splits:
    """Those positions in order, under a fingerprint of them and the images."""
    ordered = {
        "train": tuple(sorted(train)), "validation": tuple(sorted(validation)), "test": tuple(sorted(test))
    }  # fmt: skip
    return Splits(**ordered, fingerprint=digest(dataset.fingerprint, ordered))


def share_out(
    dataset: Dataset, positions: Iterable[int], shares: Mapping[str, float], *, seed: int
) -> dict[str, list[int]]:
    """Those positions by the part they go to: groups stay whole, and each part gets its share of each label.

    ``shares`` are the parts' fractions by name, 1 together.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for position in positions:
        members[group_of(dataset.infos[position])].append(position)
    parts: dict[str, list[int]] = {part: [] for part in shares}
    for groups in _strata(dataset, members).values():
        _share_out(sorted(groups, key=lambda group: _rank(group, seed)), members, shares, parts)
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
    groups: list[str], members: dict[str, list[int]], shares: Mapping[str, float], parts: dict[str, list[int]]
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

        parts[max(shares, key=lack)].extend(members[group])
