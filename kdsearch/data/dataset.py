"""The data set as the rest of the house sees it: arrays in memory and what is known of each image."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from kdsearch.data.layout import Remark
from kdsearch.data.pixels import Pixels
from kdsearch.errors import DataError
from kdsearch.files.digests import digest
from kdsearch.files.schema import Schema, unchanged

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
    remarks: tuple[Remark, ...] = ()
    """Files and images that were passed over or changed."""

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
class UnlabelledImages:
    """All images of a study without masks, at its size."""

    images: Pixels
    """N×H×W grey values 0-255, memory-mapped."""
    infos: tuple[ImageInfo, ...]
    together: tuple[tuple[str, ...], ...]
    """For each, the ids of the data set's images that it belongs together with."""
    fingerprint: str
    """Changes with any pixel, name or group, and with the data set."""
    skipped: tuple[str, ...] = ()
    """Defects of images that were left out, as the study file allowed."""
    remarks: tuple[Remark, ...] = ()
    """Files that were passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledPlace:
    """Where such a part lies on this machine."""

    data: str
    """The fingerprint of the whole."""
    positions: tuple[int, ...]
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledPart:
    """Those that students of one split may learn from."""

    whole: UnlabelledImages
    positions: tuple[int, ...]
    fraction: float
    """Of each batch."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(sorted({self.whole.infos[position].source for position in self.positions}))

    @property
    def fingerprint(self) -> str:
        """Stands for them and their fraction."""
        return digest(self.whole.fingerprint, self.positions, self.fraction)

    def place(self) -> UnlabelledPlace:
        """Where they lie under kdsearch's folder on this machine."""
        return UnlabelledPlace(data=self.whole.fingerprint, positions=self.positions, fraction=self.fraction)

    def packed(self) -> UnlabelledPart:
        """The same in memory, ready to travel to another machine."""
        whole = dataclasses.replace(self.whole, images=np.asarray(self.whole.images))
        return dataclasses.replace(self, whole=whole)

    def beside(self, dataset: Dataset, splits: Splits) -> UnlabelledPart:
        """Those for another split: that none of its validation and test images belongs together with.

        Raises DataError where there is none.
        """
        held = {dataset.infos[position].id for position in (*splits.validation, *splits.test)}
        kept = tuple(place for place, ids in enumerate(self.whole.together) if held.isdisjoint(ids))
        if not kept:
            raise DataError(
                f"data.unlabelled: all of {len(self.whole.infos)} images belong together with validation or test "
                "images; name other images"
            )
        return dataclasses.replace(self, positions=kept)


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
    unlabelled: int = 0
    """Images without masks that students learn from."""
    unlabelled_fingerprint: str | None = None
    """Of those; None where there are none."""
    validation_groups: tuple[int, ...] | None = None
    """A number for each validation image, in the order of the split, equal where images belong together, such as to one
    patient; None in what was stored before it was kept."""
    caution: str = ""
    """Why scores are probably too good, as a sentence without its period; empty if nothing is known against them."""


def group_of(info: ImageInfo) -> str:
    """What the image belongs to, such as a patient of its source; itself where nothing is known."""
    if info.group is None:
        return info.id
    return info.group if info.group.startswith(ACROSS) else f"{info.source}/group/{info.group}"


def dump_summary(summary: DataSummary) -> str:
    """As it is stored."""
    return json.dumps(SUMMARY_SCHEMA.stamped(_SUMMARY.dump_python(summary, mode="json")))


def read_summary(text: str) -> DataSummary:
    """A stored summary; raises KdsearchError for a newer release's."""
    return _SUMMARY.validate_python(SUMMARY_SCHEMA.upgraded(json.loads(text)))


def dump_infos(infos: Iterable[ImageInfo]) -> bytes:
    """As they are stored."""
    return json.dumps(INFOS_SCHEMA.stamped({"images": _INFOS.dump_python(tuple(infos))}), indent=1).encode()


def read_infos(content: bytes) -> tuple[ImageInfo, ...]:
    """Stored ones; the first releases wrote a list. Raises ValueError, or KdsearchError for a newer release's."""
    found = json.loads(content)
    return _INFOS.validate_python(
        INFOS_SCHEMA.upgraded({"images": found} if isinstance(found, list) else found)["images"]
    )


SUMMARY_SCHEMA = Schema(what="summary of the images", upgrades=(unchanged,))
INFOS_SCHEMA = Schema(what="list of images", upgrades=(unchanged,))
_SUMMARY = TypeAdapter(DataSummary)
_INFOS = TypeAdapter(tuple[ImageInfo, ...])
