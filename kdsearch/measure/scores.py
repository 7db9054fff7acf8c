"""Measures a trained network on the validation images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdsearch.measure.overlap import dice_per_image, empty_per_image, iou_per_image
from kdsearch.trials.scores import Cost, Overlap, PerImage, Scores, SourceOverlap, ToolCount


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


def measure_per_image(predicted: Tensor, target: Tensor) -> PerImage:
    """Each image's overlap, of class maps N×H×W."""
    measured = (dice_per_image(predicted, target), iou_per_image(predicted, target), empty_per_image(predicted))
    dice, iou, empty = (tuple(values.float().tolist()) for values in measured)
    return PerImage(dice=dice, iou=iou, empty=empty)


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
        per_image=measure_per_image(predicted, target),
        params=cost.params,
        macs=cost.macs,
        flops=cost.flops,
        tool_counts=tool_counts,
        train_seconds=train_seconds,
        epochs=epochs,
        best_epoch=best_epoch,
    )
