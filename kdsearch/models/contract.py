"""The interface of all networks: normalized images in, logits and feature maps out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

GRAY_MEAN, GRAY_STD = 0.449, 0.226
"""ImageNet's mean and standard deviation, averaged over the three channels; used to normalize students' images."""


def normalize(images: Tensor) -> Tensor:
    """Normalizes gray values 0-255, N×H×W or N×1×H×W, to a student's N×1×H×W floats."""
    images = images if images.ndim == 4 else images.unsqueeze(1)
    return (images.float() / 255 - GRAY_MEAN) / GRAY_STD


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """A network's results for a batch of images."""

    logits: Tensor
    """N×C×H×W."""
    features: tuple[Tensor, ...]
    """Feature maps N×K×h×w of each encoder stage, the finest first; the last is the encoder's output."""


def maps_at(features: tuple[Tensor, ...], stride: int | None, *, side: int) -> Tensor:
    """Selects the maps of a stride, for images ``side`` pixels wide; None selects the encoder's output."""
    if stride is None:
        return features[-1]
    return next(maps for maps in reversed(features) if side // maps.shape[-1] == stride)


class Encoder(Protocol):
    """Computes feature maps."""

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Computes the maps of normalized images N×1×H×W, as in ``Outputs``."""
        ...


class Network(Encoder, Protocol):
    """Computes logits and feature maps; a student or a teacher."""

    def outputs(self, image: Tensor) -> Outputs:
        """Computes logits and maps of normalized images N×1×H×W."""
        ...
