"""The data set as the rest of kdsearch uses it: arrays in memory, and facts about each image."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from kdsearch.config.task import IGNORED
from kdsearch.data.layout import Part, Remark
from kdsearch.data.pixels import Pixels
from kdsearch.errors import DataError
from kdsearch.files.digests import digest
from kdsearch.files.schema import Schema, unchanged

Boxes: TypeAlias = npt.NDArray[np.int16]

ACROSS = "across sources: "
"""Prefix of the names of groups that span several sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """Facts about one image."""

    id: str
    """``SOURCE/NAME``."""
    source: str
    label: str | None
    group: str | None
    """A split keeps all images of a group in one part; an image without a group is its own group."""
    part: Part | None = None
    """The part of the split that the data set puts the image in; None leaves it to kdsearch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """All images of a study at one size."""

    images: Pixels
    """N×C×H×W values 0-255, memory-mapped; one channel is gray, three are RGB."""
    masks: Pixels
    """N×H×W class numbers; 0 is the background, ``IGNORED`` does not count."""
    infos: tuple[ImageInfo, ...]
    fingerprint: str
    """Changes with any pixel, name, label or group."""
    classes: tuple[str, ...] = ()
    """Names of the classes other than the background, if there are several."""
    ignores: bool = False
    """Whether some pixels of the masks do not count."""
    pads: bool = False
    """Whether images were padded to keep their aspect ratio."""
    whites: tuple[float, ...] = ()
    """Values that were scaled to 255 in images of more than 8 bits; empty if there are no such images."""
    skipped: tuple[str, ...] = ()
    """Defects of images that were left out with ``on_invalid: skip``."""
    remarks: tuple[Remark, ...] = ()
    """Files and images that were ignored or changed."""

    @property
    def has_foreground(self) -> npt.NDArray[np.bool_]:
        """N, true if the mask has a class other than the background."""
        inside = foreground_of(self.masks) if self.ignores else self.masks
        return np.asarray(inside.reshape(len(inside), -1).any(axis=1), dtype=np.bool_)


def foreground_of(masks: Pixels) -> npt.NDArray[np.bool_]:
    """Returns where class numbers are those of a class other than the background."""
    return np.asarray((masks != 0) & (masks != IGNORED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Positions of the images for training, for comparing trials (validation) and for the locked test."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledImages:
    """All unlabelled images of a study at its size."""

    images: Pixels
    """N×C×H×W values 0-255, memory-mapped."""
    infos: tuple[ImageInfo, ...]
    together: tuple[tuple[str, ...], ...]
    """For each image, the ids of the data set's images in the same group."""
    fingerprint: str
    """Changes with any pixel, name or group, and with the data set."""
    boxes: Boxes | None = None
    """N×4: top, left, bottom and right of each image within its padding; None if there is no padding."""
    skipped: tuple[str, ...] = ()
    """Defects of images that were left out with ``on_invalid: skip``."""
    remarks: tuple[Remark, ...] = ()
    """Files that were ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledPlace:
    """Where a worker finds an ``UnlabelledPart`` in the cache of its machine."""

    data: str
    """The fingerprint of the ``UnlabelledImages``."""
    positions: tuple[int, ...]
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledPart:
    """The unlabelled images that students of one split may be trained on."""

    whole: UnlabelledImages
    positions: tuple[int, ...]
    fraction: float
    """Fraction of each batch that is unlabelled."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources' names, sorted."""
        return tuple(sorted({self.whole.infos[position].source for position in self.positions}))

    @property
    def fingerprint(self) -> str:
        """Changes with the images, the positions and the fraction."""
        return digest(self.whole.fingerprint, self.positions, self.fraction)

    def place(self) -> UnlabelledPlace:
        """Returns where the images are cached on this machine."""
        return UnlabelledPlace(data=self.whole.fingerprint, positions=self.positions, fraction=self.fraction)

    def packed(self) -> UnlabelledPart:
        """Loads the images into memory, so that the part can be sent to another machine."""
        whole = dataclasses.replace(self.whole, images=np.asarray(self.whole.images))
        return dataclasses.replace(self, whole=whole)

    def beside(self, dataset: Dataset, splits: Splits) -> UnlabelledPart:
        """Returns the part for another split: without images in groups of its validation and test images.

        Raises DataError if no image is left.
        """
        held = {dataset.infos[position].id for position in (*splits.validation, *splits.test)}
        kept = tuple(place for place, ids in enumerate(self.whole.together) if held.isdisjoint(ids))
        if not kept:
            raise DataError(
                f"data.unlabelled: all {len(self.whole.infos)} images belong to groups of validation or test images; "
                "use other images"
            )
        return dataclasses.replace(self, positions=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What is stored about a study's images."""

    fingerprint: str
    split: str
    """The split's fingerprint."""
    sources: tuple[str, ...]
    images: int
    train: int
    validation: int
    test: int
    unlabelled: int = 0
    """Number of unlabelled images that students are trained on."""
    unlabelled_fingerprint: str | None = None
    """None if there are no unlabelled images."""
    validation_groups: tuple[int, ...] | None = None
    """The group's number of each validation image, in the order of the split; None in older summaries."""
    caution: str = ""
    """Why scores are probably too high, as a sentence without its period; empty if there is no reason."""


def group_of(info: ImageInfo) -> str:
    """Returns a name for the image's group, unique over all sources; its own id if it has no group."""
    if info.group is None:
        return info.id
    return info.group if info.group.startswith(ACROSS) else f"{info.source}/group/{info.group}"


def dump_summary(summary: DataSummary) -> str:
    """Writes a summary as JSON."""
    return json.dumps(SUMMARY_SCHEMA.stamped(_SUMMARY.dump_python(summary, mode="json")))


def read_summary(text: str) -> DataSummary:
    """Reads a stored summary; raises KdsearchError if a newer release wrote it."""
    return _SUMMARY.validate_python(SUMMARY_SCHEMA.upgraded(json.loads(text)))


def dump_infos(infos: Iterable[ImageInfo]) -> bytes:
    """Writes infos as JSON."""
    return json.dumps(INFOS_SCHEMA.stamped({"images": _INFOS.dump_python(tuple(infos))}), indent=1).encode()


def read_infos(content: bytes) -> tuple[ImageInfo, ...]:
    """Reads stored infos; raises ValueError, or KdsearchError if a newer release wrote them."""
    found = json.loads(content)  # the first releases wrote a list
    return _INFOS.validate_python(
        INFOS_SCHEMA.upgraded({"images": found} if isinstance(found, list) else found)["images"]
    )


SUMMARY_SCHEMA = Schema(what="summary of the images", upgrades=(unchanged,))
INFOS_SCHEMA = Schema(what="list of images", upgrades=(unchanged,))
_SUMMARY = TypeAdapter(DataSummary)
_INFOS = TypeAdapter(tuple[ImageInfo, ...])
