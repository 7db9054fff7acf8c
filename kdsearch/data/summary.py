"""A study's images and their split in a few figures."""

from __future__ import annotations

from kdsearch.data.dataset import Dataset, DataSummary, Splits, UnlabelledPart, group_of
from kdsearch.data.neighbours import neighbours_apart


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
