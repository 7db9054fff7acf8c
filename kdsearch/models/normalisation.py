"""How grey values become what a network takes."""

from __future__ import annotations

from torch import Tensor

GREY_MEAN, GREY_STD = 0.449, 0.226
"""ImageNet's mean and standard deviation, averaged over its three channels; what students are trained on."""


def normalise(images: Tensor) -> Tensor:
    """N×1×H×W floats for a student from grey values 0-255, N×H×W or N×1×H×W."""
    images = images if images.ndim == 4 else images.unsqueeze(1)
    return (images.float() / 255 - GREY_MEAN) / GREY_STD
