"""Overlap of predicted and true masks, and a network's scores put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from kdsearch.trials.scores import Cost, Overlap, PerImage, Scores, SourceOverlap, ToolCount

_Ratio: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def predict_classes(logits: Tensor) -> Tensor:
    """N×H×W class numbers from logits N×C×H×W: above zero for one channel, the largest for several."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def dice_per_image(predicted: Tensor, target: Tensor) -> Tensor:
    """N Dice coefficients 2·|A∩B| / (|A|+|B|) of class maps N×H×W, averaged over the classes held or predicted there.

    A class that was predicted and is not there counts as 0. NaN for an image whose target holds no lesion: Dice has no
    meaning there.
    """
    return _per_image(predicted, target, lambda both, a, b: 2 * both / (a + b))


def iou_per_image(predicted: Tensor, target: Tensor) -> Tensor:
    """N Jaccard indices |A∩B| / (|A| + |B| - |A∩B|), averaged and NaN as in ``dice_per_image``."""
    return _per_image(predicted, target, lambda both, a, b: both / (a + b - both))


def empty_per_image(predicted: Tensor) -> Tensor:
    """N, true where nothing was predicted."""
    return ~(predicted > 0).flatten(1).any(dim=1)


def _per_image(predicted: Tensor, target: Tensor, ratio: _Ratio) -> Tensor:
    _check(predicted, target)
    columns = []
    for number in range(1, int(torch.maximum(predicted.max(), target.max())) + 1):
        a, b = (predicted == number).flatten(1), (target == number).flatten(1)
        both, size_a, size_b = (part.sum(dim=1).double() for part in (a & b, a, b))
        columns.append(torch.where(size_a + size_b > 0, ratio(both, size_a, size_b), torch.nan))
    if not columns:
        return torch.full((len(target),), torch.nan, dtype=torch.float64, device=target.device)
    lesion = (target > 0).flatten(1).any(dim=1)
    return torch.where(lesion, torch.stack(columns).nanmean(dim=0), torch.nan)


def _check(predicted: Tensor, target: Tensor) -> None:
    if predicted.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape, got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )


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
        specificity=float(empty.double().mean()) if len(empty) else None,
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
