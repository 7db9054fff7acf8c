"""Losses against masks and against the teacher, all of them averages, and the table of those that terms name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kdsearch.config.distillation import DistilledPath, Loss
from kdsearch.config.training import SupervisedLoss

DICE_SMOOTHING = 1e-3
"""Added to shares of the image, not to pixel counts, so that Dice does not depend on the image's size."""


def supervised(logits: Tensor, target: Tensor, kind: SupervisedLoss) -> Tensor:
    """Cross-entropy, or Dice plus cross-entropy, of logits N×C×H×W against class numbers N×H×W."""
    loss = cross_entropy(logits, target)
    return loss + soft_dice(logits, target) if kind == "dice_cross_entropy" else loss


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over pixels and images; one channel is a sigmoid, several are a softmax."""
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype))
    return functional.cross_entropy(logits, target.long())


def soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice of probabilities, averaged over images and lesion classes (Milletari et al. 2016)."""
    if logits.shape[1] == 1:
        probability, truth = logits.sigmoid(), target.unsqueeze(1).to(logits.dtype)
    else:
        probability = logits.softmax(dim=1)[:, 1:]
        truth = functional.one_hot(target.long(), logits.shape[1]).permute(0, 3, 1, 2)[:, 1:].to(logits.dtype)
    both, a, b = ((part).mean(dim=(2, 3)) for part in (probability * truth, probability, truth))
    return (1 - (2 * both + DICE_SMOOTHING) / (a + b + DICE_SMOOTHING)).mean()


def logits_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of logits N×C×H×W, before any activation."""
    return functional.mse_loss(student, teacher)


def logits_kld(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ student) per pixel at a temperature, times its square (Hinton et al. 2015).

    One channel is a Bernoulli distribution in each pixel; several are a categorical one over the channels.
    """
    student, teacher = student / temperature, teacher / temperature
    if student.shape[1] == 1:
        p = teacher.sigmoid()
        on = p * (functional.logsigmoid(teacher) - functional.logsigmoid(student))
        off = (1 - p) * (functional.logsigmoid(-teacher) - functional.logsigmoid(-student))
        return (on + off).mean() * temperature**2
    return _kl(student.log_softmax(dim=1), teacher.log_softmax(dim=1)).sum(dim=1).mean() * temperature**2


def logits_dml(student: Tensor, teacher: Tensor, kind: SupervisedLoss) -> Tensor:
    """The supervised loss with the teacher's probabilities in the place of the mask (Wang et al. 2023, DML).

    Cross-entropy of logits N×C×H×W against soft labels and, with ``dice_cross_entropy``, the Dice semimetric
    ``1 - (a + b - |p - q|) / (a + b)`` of means over places, which is least where both agree.
    """
    if student.shape[1] == 1:
        p, q = student.sigmoid(), teacher.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(student, q)
    else:
        p, q = student.softmax(dim=1)[:, 1:], teacher.softmax(dim=1)[:, 1:]
        entropy = functional.cross_entropy(student, teacher.softmax(dim=1))
    if kind == "cross_entropy":
        return entropy
    a, b, apart = (part.mean(dim=(2, 3)) for part in (p, q, (p - q).abs()))
    return entropy + (1 - (a + b - apart + DICE_SMOOTHING) / (a + b + DICE_SMOOTHING)).mean()


def maps_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of maps N×K×h×w."""
    return functional.mse_loss(student, teacher)


def maps_kld(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of where in the image each channel is active, averaged over channels and images.

    Each channel of N×K×h×w becomes a distribution over its h·w places (Shu et al. 2021, channel-wise distillation).
    """
    student, teacher = (maps.flatten(2) for maps in (student, teacher))
    return _kl(student.log_softmax(dim=2), teacher.log_softmax(dim=2)).sum(dim=2).mean()


def attention(maps: Tensor) -> Tensor:
    """N×1×h×w: mean over channels of the squares, scaled to a root mean square of 1 (Zagoruyko and Komodakis 2017)."""
    energy = maps.square().mean(dim=1, keepdim=True)
    return energy / energy.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)


def standardised(maps: Tensor) -> Tensor:
    """N×K×h×w with mean 0 and standard deviation 1 in each channel, over images and places."""
    mean = maps.mean(dim=(0, 2, 3), keepdim=True)
    return (maps - mean) / (maps - mean).square().mean(dim=(0, 2, 3), keepdim=True).sqrt().clamp_min(1e-3)


def _kl(student_log: Tensor, teacher_log: Tensor) -> Tensor:
    return torch.exp(teacher_log) * (teacher_log - student_log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Softening:
    """What a comparison of logits may depend on."""

    logit_std: float
    """Standard deviation of the teacher's logits; 1 where they are compared as they come."""
    temperature: float
    supervised: SupervisedLoss
    """The loss against the masks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TermLoss:
    """How far a student is from its teacher, by one loss."""

    logits: Callable[[Tensor, Tensor, Softening], Tensor] | None
    """Of the student's and the teacher's N×C×H×W; None where the loss is of maps alone."""
    maps: Callable[[Tensor, Tensor], Tensor] | None
    """Of the student's and the teacher's N×K×h×w; None where the loss is of logits alone."""
    scales: Mapping[DistilledPath, float]
    """What brings each path's gradient near that of the supervised loss, measured at the encoders' outputs.

    From ``tests/benchmarks/gradients.py``.
    """


TERM_LOSSES: dict[Loss, TermLoss] = {
    "mse": TermLoss(
        logits=lambda student, teacher, how: logits_mse(student / how.logit_std, teacher / how.logit_std),
        maps=maps_mse,
        scales={"logits": 0.35, "hidden": 1.5, "attention": 1.5, "regressor": 1.5},
    ),
    "kld": TermLoss(
        logits=lambda student, teacher, how: logits_kld(student, teacher, how.temperature),
        maps=maps_kld,
        scales={"logits": 0.7, "hidden": 1.5, "attention": 1.5, "regressor": 3.0},
    ),
    "dml": TermLoss(
        logits=lambda student, teacher, how: logits_dml(student, teacher, how.supervised),
        maps=None,
        scales={"logits": 1.0},
    ),
}
"""By the name in a study file."""
