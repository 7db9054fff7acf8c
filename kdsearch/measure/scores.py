"""Computes the overlap of predicted and true masks, and assembles a network's scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from kdsearch.config.task import IGNORED
from kdsearch.trials.scores import ClassOverlap, Cost, Overlap, PerImage, Scores, SourceOverlap, ToolCount

_Ratio: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def predict_classes(logits: Tensor) -> Tensor:
    """Returns class numbers N×H×W: logits N×K×H×W above 0 for one channel, the argmax for several."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def dice_per_image(predicted: Tensor, target: Tensor) -> Tensor:
    """Computes N Dice coefficients 2·|A∩B| / (|A|+|B|) of class maps N×H×W.

    Each is the mean over the classes in the image's prediction or target; a class in only one of them counts
    as 0. NaN for negative images, for which Dice is undefined. Pixels whose target is ``IGNORED`` do not count.
    """
    return _over_classes(dice_by_class(predicted, target))


def dice_by_class(predicted: Tensor, target: Tensor, *, classes: int = 1) -> Tensor:
    """Computes Dice N×K of each class other than the background, K at least ``classes``.

    NaN for a class in neither prediction nor target, and for negative images.
    """
    return _by_class(predicted, target, lambda both, a, b: 2 * both / (a + b), classes=classes)


def iou_per_image(predicted: Tensor, target: Tensor) -> Tensor:
    """Computes N Jaccard indices |A∩B| / (|A| + |B| - |A∩B|); averaged, and NaN, as in ``dice_per_image``."""
    return _over_classes(_by_class(predicted, target, _jaccard))


def _jaccard(both: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return both / (a + b - both)


def mean_dice(predicted: Tensor, target: Tensor, *, classes: int) -> float:
    """Returns the Dice of ``measure_overlap``; ``classes`` is the number of several classes, without the background."""
    by_class = dice_by_class(predicted, target, classes=max(1, classes))
    return _mean_of_means(by_class) if classes > 1 else float(_over_classes(by_class).nanmean())


def empty_per_image(predicted: Tensor, target: Tensor) -> Tensor:
    """Returns N booleans, true for a prediction without any class, apart from pixels whose target is ``IGNORED``."""
    return ~((predicted > 0) & (target != IGNORED)).flatten(1).any(dim=1)


def mean_iou(predicted: Tensor, target: Tensor, *, classes: int) -> float:
    """Computes the mean IoU over all classes, background included, from the confusion matrix of all images.

    This is the convention of Cityscapes and of Pascal VOC (Everingham et al. 2010). A class in neither
    predictions nor targets is left out of the mean.
    """
    counts = target != IGNORED
    pairs = target[counts].long() * classes + predicted[counts].long()
    confusion = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).double()
    both, union = confusion.diagonal(), confusion.sum(dim=0) + confusion.sum(dim=1) - confusion.diagonal()
    return float((both / union)[union > 0].mean())


def _by_class(predicted: Tensor, target: Tensor, ratio: _Ratio, *, classes: int = 1) -> Tensor:
    if predicted.shape != target.shape:
        raise ValueError(
            f"prediction and target must have the same shape, got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    counts = target != IGNORED
    predicted, target = predicted * counts, target * counts
    columns = []
    for number in range(1, max(classes, int(torch.maximum(predicted.max(), target.max()))) + 1):
        a, b = (predicted == number).flatten(1), (target == number).flatten(1)
        both, size_a, size_b = (part.sum(dim=1).double() for part in (a & b, a, b))
        columns.append(torch.where(size_a + size_b > 0, ratio(both, size_a, size_b), torch.nan))
    lesion = (target > 0).flatten(1).any(dim=1)
    return torch.where(lesion[:, None], torch.stack(columns, dim=1), torch.nan)


def _over_classes(values: Tensor) -> Tensor:
    return values.nanmean(dim=1)


def measure_overlap(predicted: Tensor, target: Tensor, *, names: Sequence[str] = ()) -> Overlap:
    """Measures the overlap of class maps N×H×W; ``dice`` is NaN if all images are negative.

    ``names`` are those of several classes, without the background. Dice and IoU are then the mean over classes of
    the mean over images.
    """
    by_class = dice_by_class(predicted, target, classes=max(1, len(names)))
    iou_by_class = _by_class(predicted, target, _jaccard, classes=max(1, len(names)))
    dice = _over_classes(by_class)
    lesion = ~dice.isnan()
    empty = empty_per_image(predicted, target)[~lesion]
    several = len(names) > 1
    classes = tuple(_class_overlap(name, by_class[:, place]) for place, name in enumerate(names)) if several else ()
    return Overlap(
        dice=_mean_of_means(by_class) if several else float(dice[lesion].mean()),
        dice_std=float(dice[lesion].std(correction=0)) if lesion.any() else 0.0,
        iou=_mean_of_means(iou_by_class) if several else float(iou_by_class[lesion].nanmean(dim=1).mean()),
        images=int(lesion.sum()),
        specificity=float(empty.double().mean()) if len(empty) else None,
        empty_images=len(empty),
        classes=classes,
        miou=mean_iou(predicted, target, classes=len(names) + 1) if several else None,
    )


def _mean_of_means(by_class: Tensor) -> float:
    """Averages N×K values over images, then over classes; a class that is in no image is left out."""
    return float(by_class.nanmean(dim=0).nanmean())


def _class_overlap(name: str, dice: Tensor) -> ClassOverlap:
    """Summarizes the N Dice coefficients of a class, NaN for images without it."""
    known = dice[~dice.isnan()]
    return ClassOverlap(
        name=name,
        dice=float(known.mean()),
        dice_std=float(known.std(correction=0)) if len(known) else 0.0,
        images=len(known),
    )


def measure_per_image(predicted: Tensor, target: Tensor) -> PerImage:
    """Measures each image's overlap, from class maps N×H×W."""
    measured = (dice_per_image(predicted, target), iou_per_image(predicted, target), empty_per_image(predicted, target))
    dice, iou, empty = (tuple(values.float().tolist()) for values in measured)
    return PerImage(dice=dice, iou=iou, empty=empty)


def measure_by_source(
    predicted: Tensor, target: Tensor, sources: Sequence[str], *, names: Sequence[str] = ()
) -> tuple[SourceOverlap, ...]:
    """Measures the overlap on each source's images; ``sources`` has the source of each of the N maps."""
    return tuple(
        SourceOverlap(source=name, overlap=measure_overlap(predicted[chosen], target[chosen], names=names))
        for name in sorted(set(sources))
        for chosen in [torch.tensor([source == name for source in sources], device=target.device)]
    )


def assemble(  # noqa: PLR0913 - one argument for each part of the scores
    *,
    predicted: Tensor,
    target: Tensor,
    sources: Sequence[str],
    names: Sequence[str] = (),
    cost: Cost,
    tool_counts: tuple[ToolCount, ...],
    train_seconds: float,
    epochs: int,
    best_epoch: int,
) -> Scores:
    """Assembles a network's scores from its predictions on the validation images and its counts."""
    return Scores(
        overlap=measure_overlap(predicted, target, names=names),
        by_source=measure_by_source(predicted, target, sources, names=names),
        per_image=measure_per_image(predicted, target),
        params=cost.params,
        macs=cost.macs,
        flops=cost.flops,
        tool_counts=tool_counts,
        train_seconds=train_seconds,
        epochs=epochs,
        best_epoch=best_epoch,
    )
