"""Scores of a trained network: accuracy, cost and training time."""

from __future__ import annotations

import base64
import json
import math
import sys
from array import array
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, PlainSerializer, TypeAdapter

from kdsearch.config.quantity import format_quantity
from kdsearch.config.renamed import FIGURES
from kdsearch.files.schema import Content, Schema, unchanged

ScoredOn: TypeAlias = Literal["validation", "test"]
"""The images of a student's scores: the ones that chose it, or the locked test images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A network's size, and its cost for one image."""

    params: int
    """Number of parameters: the sum of ``p.numel()``."""
    macs: int
    """Multiply-adds of convolutions, linear layers and attention."""

    @property
    def flops(self) -> int:
        """Two per multiply-add."""
        return 2 * self.macs


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCount:
    """The total of another tool, in its own unit."""

    tool: str
    version: str
    value: int
    unit: str
    input_shape: tuple[int, ...]

    def describe(self) -> str:
        """Describes tool, unit and input."""
        shape = "×".join(str(side) for side in self.input_shape)
        return f"{self.tool} {self.version}: {self.unit}, input {shape}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassOverlap:
    """Agreement on one class."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="constants")

    name: str
    dice: float
    """Mean over the images in whose prediction or mask the class is, 0-1; NaN if there are none."""
    dice_std: float
    """Standard deviation over those images."""
    images: int
    """Number of those images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Agreement of predictions and masks on a set of images."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="constants")

    dice: float
    """Mean over images with a lesion, 0-1; with several classes, the mean over classes of the mean over images."""
    dice_std: float
    """Standard deviation over images with a lesion; with several classes, of each image's mean over classes."""
    iou: float
    """Mean Jaccard index, 0-1, averaged as Dice."""
    images: int
    """Number of images with a lesion."""
    specificity: float | None
    """Specificity: the fraction of negative images with an empty prediction; None if there are none."""
    empty_images: int
    """Number of negative images."""
    classes: tuple[ClassOverlap, ...] = ()
    """Each class; empty if there is only one."""
    miou: float | None = None
    """Mean IoU over all classes, background included, from the confusion matrix of all images; None for one class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOverlap:
    """The overlap on one source's images."""

    source: str
    overlap: Overlap


def _pack(values: tuple[float, ...]) -> str:
    packed = array("f", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()


def _unpack(value: object) -> object:
    if not isinstance(value, str):
        return value
    packed = array("f", base64.b64decode(value, validate=True))
    if sys.byteorder == "big":
        packed.byteswap()
    return tuple(packed)


Singles: TypeAlias = Annotated[tuple[float, ...], BeforeValidator(_unpack), PlainSerializer(_pack, when_used="json")]
"""Single-precision numbers; JSON contains the base64 of their little-endian bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerImage:
    """Scores of each image, in the order of the split."""

    dice: Singles
    """NaN for negative images."""
    iou: Singles
    """NaN for negative images."""
    empty: Singles
    """1.0 for an empty prediction, else 0.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeScores:
    """Scores of each image at its original resolution, in order; NaN for negative images.

    With several classes, each is the mean over the classes in the prediction or the mask.
    """

    dice: Singles
    nsd: Singles
    """Normalized surface Dice, 0-1; 0 for a missed lesion."""
    hd95: Singles
    """95th percentile of the outlines' distance, as a fraction of the image's diagonal; 1 for a missed lesion."""
    by_class: tuple[Singles, ...] = ()
    """Dice of each class; NaN for images without it. Empty if there is only one class."""

    @property
    def mean_dice(self) -> float:
        """Mean over images; with several classes, over classes of the mean over images. NaN if all are negative."""
        columns = self.by_class or (self.dice,)
        known = [[value for value in column if value == value] for column in columns]  # noqa: PLR0124 - no NaN
        means = [fmean(values) for values in known if values]
        return fmean(means) if means else math.nan

    @property
    def missed(self) -> int:
        """Number of lesion images with an empty prediction."""
        return sum(value == 1.0 for value in self.hd95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """All measurements of one trained network, on the validation images."""

    overlap: Overlap
    by_source: tuple[SourceOverlap, ...]
    params: int
    """0 if unknown, as for a teacher that kdsearch did not build."""
    macs: int
    """Multiply-adds for one image at the study's size; 0 if unknown."""
    flops: int
    """Twice ``macs``."""
    tool_counts: tuple[ToolCount, ...]
    train_seconds: float
    epochs: int
    """Number of epochs trained."""
    best_epoch: int
    """The epoch whose weights were kept."""
    per_image: PerImage | None = None
    """None in scores stored before schema 1."""
    native: NativeScores | None = None
    """None if not measured, as in a search."""
    latency_ms: float | None = None
    """Median for one image with ONNX Runtime on one thread; None if the study has no such objective."""

    @property
    def dice(self) -> float:
        """Mean Dice over images with a lesion, 0-1."""
        return self.overlap.dice

    def headline(self) -> str:
        """Returns ``Dice 80.1 %, 122k params, 32M MACs``, with ``1.20 ms`` if latency was measured."""
        latency = f", {self.latency_ms:.2f} ms" if self.latency_ms is not None else ""
        macs = f", {format_quantity(self.macs)} MACs" if self.macs else ""
        return f"Dice {100 * self.dice:.1f} %, {self.size()}{macs}{latency}"

    def size(self) -> str:
        """Returns ``122k params``."""
        return f"{format_quantity(self.params)} params" if self.params else "of unknown size"

    def metrics(self) -> dict[str, float]:
        """Returns all metrics by name, as in MLflow."""
        found = {
            "params": self.params,
            "macs": self.macs,
            "flops": self.flops,
            "train_seconds": self.train_seconds,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
        }
        found |= {f"{count.tool}_macs": count.value for count in self.tool_counts}
        found |= {"latency_ms": self.latency_ms} if self.latency_ms is not None else {}
        found |= _overlap_metrics(self.overlap, "")
        if len(self.by_source) > 1:
            for part in self.by_source:
                found |= _overlap_metrics(part.overlap, f"{part.source}/")
        return found


def _overlap_metrics(overlap: Overlap, prefix: str) -> dict[str, float]:
    found = {"dice": overlap.dice, "dice_std": overlap.dice_std, "iou": overlap.iou}
    found |= {f"dice_{one.name.replace(' ', '_')}": one.dice for one in overlap.classes}
    found |= {} if overlap.miou is None else {"miou": overlap.miou}
    if overlap.specificity is not None:
        found["specificity"] = overlap.specificity
    return {f"{prefix}{name}": value for name, value in found.items() if value == value}  # noqa: PLR0124 - NaN differs from itself


_SCORES = TypeAdapter(Scores)


def _specificity(content: Content) -> Content:
    """Schema 1 called it another name."""
    parts = [part | {"overlap": _renamed(part["overlap"])} for part in content["by_source"]]
    return content | {"overlap": _renamed(content["overlap"]), "by_source": parts}


def _renamed(overlap: Content) -> Content:
    return {FIGURES.get(key, key): value for key, value in overlap.items()}


SCHEMA = Schema(what="scores", upgrades=(unchanged, _specificity))


def dump_scores(scores: Scores) -> str:
    """Writes scores as JSON."""
    return json.dumps(SCHEMA.stamped(_SCORES.dump_python(scores, mode="json")))


def read_scores(text: str | bytes) -> Scores:
    """Reads stored scores; raises KdsearchError if a newer release wrote them."""
    return _SCORES.validate_json(json.dumps(SCHEMA.upgraded(json.loads(text))))
