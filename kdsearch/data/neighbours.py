"""Finds images that follow each other by name and look alike, but are in different parts of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdsearch.data.dataset import ACROSS, Dataset, DataSummary, Splits, UnlabelledPart, group_of

SIDE = 16
"""Height and width in pixels of what is correlated."""
LEAST_IMAGES = 20
"""Of a source; fewer say nothing."""
CHANCE = 0.01
"""Share of pairs of images far apart by name that count as alike."""
MANY = 0.1
"""Share of neighbours that are alike, from which on it is no chance."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Pairs of images of sources without groups that follow each other by name."""

    pairs: int
    alike: int
    """More alike than 99 % of pairs far apart by name, as the frames of a video are."""
    apart: int
    """Of the alike, those in different parts of the split."""

    def __str__(self) -> str:
        return (
            f"no groups (patients, videos) are given, and of {self.alike} pairs of images that follow each other by "
            f"name and look alike, {self.apart} are in different parts of the split: scores are probably too good; "
            "name the groups in a table (csv) with the columns image and group"
        )


def neighbours_apart(dataset: Dataset, splits: Splits) -> Neighbours | None:
    """Such pairs, if there are so many that they are no chance, and some are in different parts; None otherwise.

    Only sources of files are looked at that give no groups.
    """
    part = dict.fromkeys(splits.train, "train") | dict.fromkeys(splits.validation, "validation")
    part |= dict.fromkeys(splits.test, "test")
    found = [_of_source(dataset, positions, part) for positions in _without_groups(dataset)]
    many = [one for one in found if one.alike >= MANY * one.pairs and one.apart]
    if not many:
        return None
    return Neighbours(
        pairs=sum(one.pairs for one in many),
        alike=sum(one.alike for one in many),
        apart=sum(one.apart for one in many),
    )


def _without_groups(dataset: Dataset) -> list[list[int]]:
    """Positions by source, in the order of names, of sources whose groups are near-duplicates only."""
    ids = {info.id for info in dataset.infos}
    sources: dict[str, list[int]] = {}
    given = set[str]()
    for position, info in enumerate(dataset.infos):
        sources.setdefault(info.source, []).append(position)
        if info.group is None or info.group.removeprefix(ACROSS) not in ids:
            given.add(info.source)  # simulated images have no group, and nothing in common
    return [
        sorted(positions, key=lambda position: _in_order(dataset.infos[position].id))
        for source, positions in sources.items()
        if source not in given and len(positions) >= LEAST_IMAGES
    ]


def _in_order(name: str) -> list[tuple[int, str]]:
    """A key by which ``a (9)`` comes before ``a (10)``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _of_source(dataset: Dataset, positions: Sequence[int], part: dict[int, str]) -> Neighbours:
    small = _normalised(dataset, positions)
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
    return Neighbours(pairs=len(near), alike=len(alike), apart=len(apart))


def _normalised(dataset: Dataset, positions: Sequence[int]) -> Floats:
    """N×256: small copies of mean 0 and length 1."""
    step = dataset.images.shape[1] // SIDE
    side = step * SIDE
    small = np.stack(
        [dataset.images[place][:side, :side].reshape(SIDE, step, SIDE, step).mean(axis=(1, 3)) for place in positions]
    ).reshape(len(positions), -1)
    small -= small.mean(axis=1, keepdims=True)
    unit: Floats = (small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)).astype(np.float32)
    return unit


def summarise(dataset: Dataset, splits: Splits, unlabelled: UnlabelledPart | None = None) -> DataSummary:
    """The images and their split in a few figures."""
    neighbours = neighbours_apart(dataset, splits)
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
        caution="" if neighbours is None else str(neighbours),
    )


def _numbered(names: list[str]) -> tuple[int, ...]:
    """Equal numbers for equal names, from 0 in the order of appearance."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return tuple(places[name] for name in names)
