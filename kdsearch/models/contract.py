"""What every network takes and gives: normalised images; logits, and the maps that were computed on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

GREY_MEAN, GREY_STD = 0.449, 0.226
"""ImageNet's mean and standard deviation, averaged over its three channels; what students are trained on."""


def normalise(images: Tensor) -> Tensor:
    """N×1×H×W floats for a student from grey values 0-255, N×H×W or N×1×H×W."""
    images = images if images.ndim == 4 else images.unsqueeze(1)
    return (images.float() / 255 - GREY_MEAN) / GREY_STD


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a network computed of a batch of images."""

    logits: Tensor
    """N×C×H×W."""
    features: tuple[Tensor, ...]
    """The encoder's maps N×K×h×w, each stage's, the finest first; the last is the encoder's output."""


def maps_at(features: tuple[Tensor, ...], stride: int | None, *, side: int) -> Tensor:
    """Maps of that stride, of images ``side`` pixels wide; None stands for the encoder's output."""
    if stride is None:
        return features[-1]
    return next(maps for maps in reversed(features) if side // maps.shape[-1] == stride)


class Encoder(Protocol):
    """Gives maps."""

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """As in ``Outputs``, of images N×1×H×W."""
        ...


class Network(Encoder, Protocol):
    """Gives logits and maps; a student or a teacher."""

    def outputs(self, image: Tensor) -> Outputs:
        """Of images N×1×H×W, normalised."""
        ...
