"""Losses against the masks and against the teacher, all of them means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from kdsearch.config.distillation import DistilledPath, Loss
from kdsearch.config.training import SupervisedLoss

DICE_SMOOTHING = 1e-3
"""Added to fractions of the image, not to pixel counts, so that Dice does not depend on the image's size."""
AFFINITY_SIDE = 8
"""Cells per side between which cosines are compared; the number of pairs grows with its fourth power."""
LOWEST = -1e4
"""A logit with the probability 0 in half precision too."""
OUTLINE = 1 / 32
"""How far ``boundary`` reaches from an outline, as a fraction of the image's side."""


def supervised(logits: Tensor, target: Tensor, kind: SupervisedLoss, counts: Tensor | None = None) -> Tensor:
    """Cross-entropy, or Dice plus cross-entropy, of logits N×K×H×W against class numbers N×H×W.

    ``counts`` N×1×H×W is 1 for the pixels that count and 0 for others; None means that all count.
    """
    loss = cross_entropy(logits, target, counts)
    return loss + soft_dice(logits, target, counts) if kind == "dice_cross_entropy" else loss


def cross_entropy(logits: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean over pixels and images; uses a sigmoid for one channel and a softmax for several."""
    how = "mean" if counts is None else "none"
    if logits.shape[1] == 1:
        loss = functional.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype), reduction=how)
    else:
        loss = functional.cross_entropy(logits, target.long(), reduction=how)
    return loss if counts is None else (loss * counts[:, 0]).sum() / counts.sum().clamp_min(1)


def soft_dice(logits: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
    """One minus the Dice of probabilities, averaged over images and classes (Milletari et al. 2016)."""
    if logits.shape[1] == 1:
        probability, truth = logits.sigmoid(), target.unsqueeze(1).to(logits.dtype)
    else:
        probability = logits.softmax(dim=1)[:, 1:]
        truth = functional.one_hot(target.long(), logits.shape[1]).permute(0, 3, 1, 2)[:, 1:].to(logits.dtype)
    if counts is not None:
        probability, truth = probability * counts, truth * counts
    both, a, b = (part.mean(dim=(2, 3)) for part in (probability * truth, probability, truth))
    return (1 - (2 * both + DICE_SMOOTHING) / (a + b + DICE_SMOOTHING)).mean()


def logits_mse(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared difference of logits N×C×H×W, before any activation; ``weights`` as from ``outline_weights``."""
    return _weighted_mean((student - teacher).square(), weights)


def logits_kld(student: Tensor, teacher: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """KL(teacher ‖ student) per pixel, times the squared temperature (Hinton et al. 2015).

    One channel is a Bernoulli distribution per pixel; several are a categorical distribution over the channels.
    """
    student, teacher = student / temperature, teacher / temperature
    if student.shape[1] == 1:
        p = teacher.sigmoid()
        on = p * (functional.logsigmoid(teacher) - functional.logsigmoid(student))
        off = (1 - p) * (functional.logsigmoid(-teacher) - functional.logsigmoid(-student))
        return _weighted_mean(on + off, weights) * temperature**2
    apart = _kl(student.log_softmax(dim=1), teacher.log_softmax(dim=1)).sum(dim=1, keepdim=True)
    return _weighted_mean(apart, weights) * temperature**2


def logits_dml(student: Tensor, teacher: Tensor, kind: SupervisedLoss, weights: Tensor | None = None) -> Tensor:
    """The supervised loss with the teacher's probabilities instead of the mask (Wang et al. 2023, DML).

    Cross-entropy of logits N×C×H×W against soft labels and, with ``dice_cross_entropy``, the Dice semimetric
    ``1 - (a + b - |p - q|) / (a + b)`` of means over pixels, which is smallest when both agree.
    """
    if student.shape[1] == 1:
        p, q = student.sigmoid(), teacher.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(student, q, reduction="none")
    else:
        p, q = student.softmax(dim=1)[:, 1:], teacher.softmax(dim=1)[:, 1:]
        entropy = functional.cross_entropy(student, teacher.softmax(dim=1), reduction="none").unsqueeze(1)
    loss = _weighted_mean(entropy, weights)
    if kind == "cross_entropy":
        return loss
    a, b, apart = (_weighted(part, weights).mean(dim=(2, 3)) for part in (p, q, (p - q).abs()))
    return loss + (1 - (a + b - apart + DICE_SMOOTHING) / (a + b + DICE_SMOOTHING)).mean()


def only_counted(logits: Tensor, counts: Tensor | None) -> Tensor:
    """Removes pixels that do not count from distributions over pixels, by the lowest logit."""
    return logits if counts is None else logits.masked_fill(counts == 0, LOWEST)


def maps_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of maps N×K×h×w."""
    return functional.mse_loss(student, teacher)


def maps_kld(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) of each channel's spatial distribution, averaged over channels and images.

    A softmax at the temperature turns each channel of N×K×h×w into a distribution over its h·w cells; the result is
    multiplied by the squared temperature (Shu et al. 2021, channel-wise distillation, equation 4). Adding a constant to
    a channel changes nothing.
    """
    student, teacher = (maps.flatten(2) / temperature for maps in (student, teacher))
    return _kl(student.log_softmax(dim=2), teacher.log_softmax(dim=2)).sum(dim=2).mean() * temperature**2


def maps_pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus Pearson's correlation of each channel of N×K×h×w over images and cells, averaged over channels.

    Equals half the mean squared difference of standardized maps (Cao et al. 2022, PKD, equations 2 and 5).
    """
    return functional.mse_loss(standardized(student), standardized(teacher)) / 2


def maps_affinity(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines between all pairs of cells (Liu et al. 2019, pair-wise distillation).

    Maps N×K×h×w and N×L×h×w are pooled to at most ``AFFINITY_SIDE`` cells per side; K and L may differ.
    """
    return functional.mse_loss(_affinities(student), _affinities(teacher))


def _affinities(maps: Tensor) -> Tensor:
    """N×P×P cosines between cells."""
    height, width = (min(side, AFFINITY_SIDE) for side in maps.shape[-2:])
    cells = functional.normalize(functional.adaptive_avg_pool2d(maps, (height, width)).flatten(2), dim=1)
    return cells.transpose(1, 2) @ cells


def maps_region(
    student: Tensor, teacher: Tensor, target: Tensor, *, classes: int = 2, counts: Tensor | None = None
) -> Tensor:
    """Mean squared difference of each cell's cosine to the mean of its class (Wang et al. 2020, IFVD, equation 3).

    Compares maps N×K×h×w and N×L×h×w, with class numbers ``target`` N×H×W below ``classes``; K and L may differ. Means
    are taken per image. A cell with several classes counts for each in proportion to its pixels.
    """
    pixels = functional.one_hot(target.long(), classes).permute(0, 3, 1, 2).to(student.dtype)
    if counts is not None:
        pixels = pixels * counts
    height, width = student.shape[-2:]
    members = functional.adaptive_avg_pool2d(pixels, (height, width))
    apart = _to_prototypes(student, members) - _to_prototypes(teacher, members)
    return (members * apart.square()).sum(dim=1).mean()


def _to_prototypes(maps: Tensor, members: Tensor) -> Tensor:
    """N×C×h×w cosines of each cell to the mean of each class; ``members`` N×C×h×w are fractions from 0 to 1."""
    cells = maps.flatten(2)
    means = members.flatten(2) @ cells.transpose(1, 2) / members.flatten(2).sum(dim=2, keepdim=True).clamp_min(1e-6)
    cosines = functional.normalize(means, dim=2) @ functional.normalize(cells, dim=1)
    return cosines.reshape(*cosines.shape[:2], *maps.shape[-2:])


def outline_weights(target: Tensor, extra: float) -> Tensor:
    """Pixel weights N×1×H×W: ``1 + extra`` near the outlines of class numbers N×H×W and 1 elsewhere, scaled to mean 1.

    A pixel is near an outline if another class is within ``OUTLINE`` of the image's side.
    """
    reach = max(1, round(OUTLINE * target.shape[-1]))
    classes = target.unsqueeze(1).float()
    highest, lowest = (
        functional.max_pool2d(sign * classes, 2 * reach + 1, stride=1, padding=reach) * sign for sign in (1, -1)
    )
    weights = 1 + extra * (highest != lowest).float()
    return weights / weights.mean(dim=(2, 3), keepdim=True)


def attention(maps: Tensor) -> Tensor:
    """N×1×h×w mean of squares over channels, scaled to a root mean square of 1 (Zagoruyko and Komodakis 2017)."""
    energy = maps.square().mean(dim=1, keepdim=True)
    return energy / energy.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)


def standardized(maps: Tensor) -> Tensor:
    """N×K×h×w with mean 0 and standard deviation 1 in each channel, over images and cells."""
    mean = maps.mean(dim=(0, 2, 3), keepdim=True)
    return (maps - mean) / (maps - mean).square().mean(dim=(0, 2, 3), keepdim=True).sqrt().clamp_min(1e-3)


def _weighted(values: Tensor, weights: Tensor | None) -> Tensor:
    return values if weights is None else values * weights


def _weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    return _weighted(values, weights).mean()


def _kl(student_log: Tensor, teacher_log: Tensor) -> Tensor:
    return torch.exp(teacher_log) * (teacher_log - student_log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The inputs of a comparison other than student and teacher."""

    logit_std: float
    """Standard deviation of the teacher's logits; 1 if they are compared without scaling."""
    temperature: float
    supervised: SupervisedLoss
    """The loss against the masks."""
    target: Tensor
    """Class numbers M×H×W of the first M images, which have a mask."""
    classes: int = 2
    """Number of classes."""
    weights: Tensor | None = None
    """Pixel weights N×1×H×W with mean 1; None if all pixels count equally."""
    counts: Tensor | None = None
    """N×1×H×W, 1 for the pixels that count and 0 for others; None if all count."""


Comparing: TypeAlias = Callable[[Tensor, Tensor, Setting], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TermLoss:
    """One distillation loss, for logits, feature maps or both."""

    logits: Comparing | None = None
    """Compares logits N×C×H×W; None if the loss applies only to feature maps."""
    maps: Comparing | None = None
    """Compares feature maps N×K×h×w; None if the loss applies only to logits."""
    scales: Mapping[DistilledPath, float]
    """Factors that bring each path's gradient near that of the supervised loss, measured at the encoders' outputs.

    ``tests/benchmarks/gradients.py`` measures them.
    """


TERM_LOSSES: dict[Loss, TermLoss] = {
    "mse": TermLoss(
        logits=lambda student, teacher, how: logits_mse(student / how.logit_std, teacher / how.logit_std, how.weights),
        maps=lambda student, teacher, _: maps_mse(student, teacher),
        scales={"logits": 0.35, "hidden": 1.5, "attention": 1.5, "regressor": 1.5},
    ),
    "kld": TermLoss(
        logits=lambda student, teacher, how: logits_kld(student, teacher, how.temperature, how.weights),
        maps=lambda student, teacher, _: maps_kld(student, teacher),
        scales={"logits": 0.7, "hidden": 1.5, "attention": 1.5, "regressor": 3.0},
    ),
    "dml": TermLoss(
        logits=lambda student, teacher, how: logits_dml(student, teacher, how.supervised, how.weights),
        scales={"logits": 1.0},
    ),
    "cwd": TermLoss(
        logits=lambda student, teacher, how: maps_kld(
            only_counted(student, how.counts), only_counted(teacher, how.counts), how.temperature
        ),
        maps=lambda student, teacher, how: maps_kld(student, teacher, how.temperature),
        scales={"logits": 0.03, "hidden": 3.0, "regressor": 3.0},
    ),
    "pkd": TermLoss(
        maps=lambda student, teacher, _: maps_pkd(student, teacher),
        scales={"hidden": 5.0, "regressor": 5.0},
    ),
    "affinity": TermLoss(
        maps=lambda student, teacher, _: maps_affinity(student, teacher),
        scales={"hidden": 4.0},
    ),
    "region": TermLoss(
        maps=lambda student, teacher, how: maps_region(
            student[: len(how.target)],
            teacher[: len(how.target)],
            how.target,
            classes=how.classes,
            counts=None if how.counts is None else how.counts[: len(how.target)],
        ),
        scales={"hidden": 4.0},
    ),
}
"""Losses by their name in a study file."""
