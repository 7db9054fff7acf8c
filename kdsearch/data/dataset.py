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
    )


SUMMARY = TypeAdapter(DataSummary)
INFOS = TypeAdapter(tuple[ImageInfo, ...])
