"""What is known of a trained network: how good, how large, how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from kdsearch.config.quantity import format_quantity
from kdsearch.measure.counts import Cost, ToolCount
from kdsearch.measure.overlap import dice_per_image, empty_per_image, iou_per_image


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
    empty_share: float | None
    """Share of the images without a lesion in which nothing was predicted; None where there are none."""
    empty_images: int
    """How many images without a lesion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOverlap:
    """The overlap on one source's images."""

    source: str
    overlap: Overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Everything measured of one trained network, on the validation split."""

    overlap: Overlap
    by_source: tuple[SourceOverlap, ...]
    params: int
    macs: int
    """Multiply-adds for one image at the study's size."""
    flops: int
    """Twice ``macs``."""
    tool_counts: tuple[ToolCount, ...]
    train_seconds: float
    epochs: int
    """Epochs trained."""
    best_epoch: int
    """The epoch whose weights were kept."""
    latency_ms: float | None = None
    """Median of one image with ONNX Runtime on one thread; None where the study has no such objective."""

    @property
    def dice(self) -> float:
        """Mean Dice over images with a lesion, 0-1."""
        return self.overlap.dice

    def headline(self) -> str:
        """``Dice 80.1 %, 122k params, 32M MACs``, and ``1.20 ms`` where latency was measured."""
        latency = f", {self.latency_ms:.2f} ms" if self.latency_ms is not None else ""
        size = f"{format_quantity(self.params)} params, {format_quantity(self.macs)} MACs"
        return f"Dice {100 * self.dice:.1f} %, {size}{latency}"

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
    if overlap.empty_share is not None:
        found["empty_share"] = overlap.empty_share
    return {f"{prefix}{name}": value for name, value in found.items() if value == value}  # noqa: PLR0124 - NaN differs from itself


def measure_overlap(predicted: Tensor, target: Tensor) -> Overlap:
    """The overlap of class maps N×H×W; ``dice`` is NaN where no image holds a lesion."""
    dice, iou = dice_per_image(predicted, target), iou_per_image(predicted, target)
    lesion = ~dice.isnan()
    empty = empty_per_image(predicted)[~lesion]
    return Overlap(
        dice=float(dice[lesion].mean()),
        dice_std=float(dice[lesion].std(correction=0)) if lesion.any() else 0.0,
        iou=float(iou[lesion].mean()),
        images=int(lesion.sum()),
        empty_share=float(empty.double().mean()) if len(empty) else None,
        empty_images=len(empty),
    )


def measure_by_source(predicted: Tensor, target: Tensor, sources: Sequence[str]) -> tuple[SourceOverlap, ...]:
    """The overlap on each source's images; ``sources`` names the source of each of the N maps."""
    return tuple(
        SourceOverlap(source=name, overlap=measure_overlap(predicted[chosen], target[chosen]))
        for name in sorted(set(sources))
        for chosen in [torch.tensor([source == name for source in sources], device=target.device)]
    )


def assemble(  # one argument for each thing measured
    *,
    predicted: Tensor,
    target: Tensor,
    sources: Sequence[str],
    cost: Cost,
    tool_counts: tuple[ToolCount, ...],
    train_seconds: float,
    epochs: int,
    best_epoch: int,
) -> Scores:
    """Scores of a network from its predictions on the validation images and its counts."""
    return Scores(
        overlap=measure_overlap(predicted, target),
        by_source=measure_by_source(predicted, target, sources),
        params=cost.params,
        macs=cost.macs,
        flops=cost.flops,
        tool_counts=tool_counts,
        train_seconds=train_seconds,
        epochs=epochs,
        best_epoch=best_epoch,
    )


SCORES = TypeAdapter(Scores)
