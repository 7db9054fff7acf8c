"""The data set as the rest of the house sees it: arrays in memory and what is known of each image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from kdsearch.data.pixels import Pixels

ACROSS = "across sources: "
"""How the name of a group begins that has members in several sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What is known of one image."""

    id: str
    """``SOURCE/NAME``."""
    source: str
    label: str | None
    group: str | None
    """Images of one group never stand on both sides of a split; None is a group of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """All images of a study at one size."""

    images: Pixels
    """N×H×W grey values 0-255, memory-mapped."""
    masks: Pixels
    """N×H×W, 255 inside a lesion."""
    infos: tuple[ImageInfo, ...]
    fingerprint: str
    """Changes with any pixel, name, label or group."""
    whites: tuple[float, ...] = ()
    """What became 255 in images of more than 8 bits, of one source or another; empty where there were none."""
    skipped: tuple[str, ...] = ()
    """Defects of images that were left out, as the study file allowed."""

    @property
    def has_lesion(self) -> npt.NDArray[np.bool_]:
        """N, true where the mask is not empty."""
        return np.asarray(self.masks.reshape(len(self.masks), -1).any(axis=1), dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Which images train, which compare trials, which stay locked; as positions in the data set."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What a record of a study says of its images."""

    fingerprint: str
    split: str
    """The split's fingerprint."""
    sources: tuple[str, ...]
    images: int
    train: int
    validation: int
    test: int
    validation_groups: tuple[int, ...] | None = None
    """A number for each validation image, in the order of the split, equal where images belong together, such as to one
    patient; None in what was stored before it was kept."""


def summarise(dataset: Dataset, splits: Splits) -> DataSummary:
    """The images and their split in a few figures."""
    return DataSummary(
        fingerprint=dataset.fingerprint,
        split=splits.fingerprint,
        sources=tuple(sorted({info.source for info in dataset.infos})),
        images=len(dataset.infos),
        train=len(splits.train),
        validation=len(splits.validation),
        test=len(splits.test),
        validation_groups=_numbered([group_of(dataset.infos[position]) for position in splits.validation]),
    )


def group_of(info: ImageInfo) -> str:
    """What the image belongs to, such as a patient of its source; itself where nothing is known."""
    if info.group is None:
        return info.id
    return info.group if info.group.startswith(ACROSS) else f"{info.source}/group/{info.group}"


def _numbered(names: list[str]) -> tuple[int, ...]:
    """Equal numbers for equal names, from 0 in the order of appearance."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return tuple(places[name] for name in names)


SUMMARY = TypeAdapter(DataSummary)
INFOS = TypeAdapter(tuple[ImageInfo, ...])
