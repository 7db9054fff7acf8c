"""The interface of all networks: normalized images in, logits and feature maps out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

INPUT_MEAN, INPUT_STD = 0.449, 0.226
"""ImageNet's mean and standard deviation, averaged over the three channels; used to normalize all images, gray or
color. Networks for color images then apply statistics of their own."""


def normalize(images: Tensor) -> Tensor:
    """Normalizes values 0-255, N×C×H×W or gray N×H×W, to a student's N×C×H×W floats."""
    images = images if images.ndim == 4 else images.unsqueeze(1)
    return (images.float() / 255 - INPUT_MEAN) / INPUT_STD


class EncoderInput(nn.Module):
    """Changes images N×C×H×W from kdsearch's normalization to that of an encoder's pretrained weights."""

    scale: float | Tensor
    shift: float | Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Takes the mean and standard deviation of each channel, of values 0-1."""
        super().__init__()
        if len(mean) == 1:
            self.scale, self.shift = INPUT_STD / std[0], (INPUT_MEAN - mean[0]) / std[0]
            return
        means, stds = (torch.tensor(tuple(values)).reshape(1, -1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", INPUT_STD / stds, persistent=False)
        self.register_buffer("shift", (INPUT_MEAN - means) / stds, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return image * self.scale + self.shift


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
        """Computes the maps of normalized images N×C×H×W, as in ``Outputs``."""
        ...


class Network(Encoder, Protocol):
    """Computes logits and feature maps; a student or a teacher."""

    def outputs(self, image: Tensor) -> Outputs:
        """Computes logits and maps of normalized images N×C×H×W."""
        ...
