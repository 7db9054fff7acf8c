"""Detects similar images with consecutive names (video frames) that are in different parts of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdsearch.data.dataset import ACROSS, Dataset, DataSummary, Splits, UnlabelledPart, group_of

SIDE = 16
"""Height and width, in pixels, of the thumbnails that are correlated."""
LEAST_IMAGES = 20
"""Sources with fewer images are not checked."""
CHANCE = 0.01
"""Fraction of pairs with distant names that count as similar; sets the threshold."""
MANY = 0.1
"""From this fraction of similar consecutive pairs on, the similarity is not due to chance."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbors:
    """Counts of pairs of images with consecutive names, over sources without groups."""

    pairs: int
    alike: int
    """Pairs more similar than 99 % of the pairs with distant names, as video frames are."""
    apart: int
    """Similar pairs whose images are in different parts of the split."""

    def __str__(self) -> str:
        return (
            f"no groups (patients, videos) are given, and {self.apart} of {self.alike} pairs of similar images with "
            "consecutive names are in different parts of the split: scores are probably too high; name the groups in "
            "a table (csv) with the columns image and group"
        )


def neighbors_apart(dataset: Dataset, splits: Splits) -> Neighbors | None:
    """Counts similar pairs, or returns None if they are due to chance or no pair is split.

    Checks only sources of files that name no groups.
    """
    part = dict.fromkeys(splits.train, "train") | dict.fromkeys(splits.validation, "validation")
    part |= dict.fromkeys(splits.test, "test")
    found = [_of_source(dataset, positions, part) for positions in _without_groups(dataset)]
    many = [one for one in found if one.alike >= MANY * one.pairs and one.apart]
    if not many:
        return None
    return Neighbors(
        pairs=sum(one.pairs for one in many),
        alike=sum(one.alike for one in many),
        apart=sum(one.apart for one in many),
    )


def _without_groups(dataset: Dataset) -> list[list[int]]:
    """Positions in the order of names, for each source whose only groups are near-duplicates."""
    ids = {info.id for info in dataset.infos}
    sources: dict[str, list[int]] = {}
    given = set[str]()
    for position, info in enumerate(dataset.infos):
        sources.setdefault(info.source, []).append(position)
        if info.group is None or info.group.removeprefix(ACROSS) not in ids:
            given.add(info.source)  # simulated images have no group and are independent
    return [
        sorted(positions, key=lambda position: _in_order(dataset.infos[position].id))
        for source, positions in sources.items()
        if source not in given and len(positions) >= LEAST_IMAGES
    ]


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``a (9)`` before ``a (10)``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _of_source(dataset: Dataset, positions: Sequence[int], part: dict[int, str]) -> Neighbors:
    small = _normalized(dataset, positions)
    far = [np.sum(small * np.roll(small, len(small) // share, axis=0), axis=1) for share in (2, 3, 4)]
    limit = np.quantile(np.concatenate(far), 1 - CHANCE)
    near = np.sum(small[:-1] * small[1:], axis=1)
    alike = [place for place in range(len(near)) if near[place] > limit]
    groups = [dataset.infos[position].group for position in positions]
    apart = [
        place
        for place in alike
        if groups[place] != groups[place + 1]
        and len({part.get(positions[place]), part.get(positions[place + 1])} - {None}) > 1
    ]
    return Neighbors(pairs=len(near), alike=len(alike), apart=len(apart))


def _normalized(dataset: Dataset, positions: Sequence[int]) -> Floats:
    """N×256 thumbnails with mean 0 and norm 1."""
    down, right = (length // SIDE for length in dataset.images.shape[2:])
    small = np.stack(
        [
            dataset.images[place][:, : down * SIDE, : right * SIDE]
            .reshape(-1, SIDE, down, SIDE, right)
            .mean(axis=(0, 2, 4))
            for place in positions
        ]
    ).reshape(len(positions), -1)
    small -= small.mean(axis=1, keepdims=True)
    unit: Floats = (small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)).astype(np.float32)
    return unit


def summarize(dataset: Dataset, splits: Splits, unlabelled: UnlabelledPart | None = None) -> DataSummary:
    """Summarizes the images and their split."""
    neighbors = neighbors_apart(dataset, splits)
    return DataSummary(
        fingerprint=dataset.fingerprint,
        split=splits.fingerprint,
        sources=tuple(sorted({info.source for info in dataset.infos})),
        images=len(dataset.infos),
        train=len(splits.train),
        validation=len(splits.validation),
        test=len(splits.test),
        unlabelled=0 if unlabelled is None else len(unlabelled.positions),
        unlabelled_fingerprint=None if unlabelled is None else unlabelled.fingerprint,
        validation_groups=_numbered([group_of(dataset.infos[position]) for position in splits.validation]),
        caution="" if neighbors is None else str(neighbors),
    )


def _numbered(names: list[str]) -> tuple[int, ...]:
    """Numbers names from 0 in order of appearance; equal names get equal numbers."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return tuple(places[name] for name in names)
