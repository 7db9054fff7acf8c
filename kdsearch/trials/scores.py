"""What is known of a trained network: how good, how large, how long."""

from __future__ import annotations

import base64
import json
import sys
from array import array
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, PlainSerializer, TypeAdapter

from kdsearch.config.quantity import format_quantity
from kdsearch.config.renamed import FIGURES
from kdsearch.files.schema import Content, Schema, unchanged

ScoredOn: TypeAlias = Literal["validation", "test"]
"""Which images a student's figures are of: those it was chosen by, or the locked ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a network costs for one image."""

    params: int
    """Trainable numbers, ``p.numel()`` summed."""
    macs: int
    """Multiply-adds of convolutions, linear layers and attention."""

    @property
    def flops(self) -> int:
        """Two for each multiply-add."""
        return 2 * self.macs


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCount:
    """Another tool's own total, as it counts."""

    tool: str
    version: str
    value: int
    unit: str
    input_shape: tuple[int, ...]

    def describe(self) -> str:
        """What the number is of."""
        shape = "×".join(str(side) for side in self.input_shape)
        return f"{self.tool} {self.version}: {self.unit}, input {shape}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How well masks were predicted on a set of images."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="constants")

    dice: float
    """Mean over images with a lesion, 0-1."""
    dice_std: float
    """Standard deviation over those images."""
    iou: float
    """Mean Jaccard index over those images, 0-1."""
    images: int
    """How many images with a lesion."""
    specificity: float | None
    """Fraction of the negative images in which nothing was predicted; None if there are none."""
    empty_images: int
    """How many images without a lesion."""


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
"""Numbers of single precision; in JSON the base64 of their bytes, little-endian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerImage:
    """What was measured on each image, in the order of the split."""

    dice: Singles
    """NaN for an image without a lesion."""
    iou: Singles
    """NaN likewise."""
    empty: Singles
    """1.0 where nothing was predicted, else 0.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeScores:
    """What was measured on each image at the size of its file, in their order; NaN where there is no lesion."""

    dice: Singles
    nsd: Singles
    """Normalised surface Dice, 0-1; 0 for a missed lesion."""
    hd95: Singles
    """95th percentile of the outlines' distance, as a fraction of the image's diagonal; 1 for a missed lesion."""

    @property
    def missed(self) -> int:
        """Images with a lesion in which nothing was marked."""
        return sum(value == 1.0 for value in self.hd95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Everything measured of one trained network, on the validation split."""

    overlap: Overlap
    by_source: tuple[SourceOverlap, ...]
    params: int
    """0 where it is not known, of a teacher that kdsearch did not build."""
    macs: int
    """Multiply-adds for one image at the study's size; 0 where it is not known."""
    flops: int
    """Twice ``macs``."""
    tool_counts: tuple[ToolCount, ...]
    train_seconds: float
    epochs: int
    """Epochs trained."""
    best_epoch: int
    """The epoch whose weights were kept."""
    per_image: PerImage | None = None
    """None in what was stored before schema 1."""
    native: NativeScores | None = None
    """None where it was not measured, as in a search."""
    latency_ms: float | None = None
    """Median of one image with ONNX Runtime on one thread; None where the study has no such objective."""

    @property
    def dice(self) -> float:
        """Mean Dice over images with a lesion, 0-1."""
        return self.overlap.dice

    def headline(self) -> str:
        """``Dice 80.1 %, 122k params, 32M MACs``, and ``1.20 ms`` where latency was measured."""
        latency = f", {self.latency_ms:.2f} ms" if self.latency_ms is not None else ""
        macs = f", {format_quantity(self.macs)} MACs" if self.macs else ""
        return f"Dice {100 * self.dice:.1f} %, {self.size()}{macs}{latency}"

    def size(self) -> str:
        """``122k params``."""
        return f"{format_quantity(self.params)} params" if self.params else "of unknown size"

    def metrics(self) -> dict[str, float]:
        """Every figure by name, as it is recorded."""
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
    """As they are stored."""
    return json.dumps(SCHEMA.stamped(_SCORES.dump_python(scores, mode="json")))


def read_scores(text: str | bytes) -> Scores:
    """Stored scores; raises KdsearchError where a newer release wrote them."""
    return _SCORES.validate_json(json.dumps(SCHEMA.upgraded(json.loads(text))))
