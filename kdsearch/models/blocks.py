"""Parts that the families of students have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdsearch.config.student import Convolution
from kdsearch.errors import ShapeError


def stage(before: int, after: int, *, convolutions: int, convolution: Convolution) -> nn.Sequential:
    """So many 3×3 convolutions, each with batch norm and ReLU, from ``before`` to ``after`` channels."""
    layers: list[nn.Module] = []
    for index in range(convolutions):
        layers += _convolution(before if index == 0 else after, after, convolution)
    return nn.Sequential(*layers)


def upsampled(maps: Tensor, skip: Tensor | None) -> Tensor:
    """The maps at twice their height and width, by nearest neighbours, and behind them the skip's channels."""
    wide = nn.functional.interpolate(maps, scale_factor=2.0, mode="nearest")
    return wide if skip is None else torch.cat([wide, skip], dim=1)


def require_divisible(image: Tensor, stride: int) -> None:
    """Raises ShapeError unless the stride divides the image's height and width."""
    height, width = image.shape[-2:]
    if height % stride or width % stride:
        raise ShapeError(
            f"images of {height}×{width} do not divide by the student's stride {stride}; "
            f"the nearest size that works is {_nearest(height, stride)}×{_nearest(width, stride)}"
        )


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """He-normal convolutions, neutral batch norms, drawn from the generator (He et al. 2015)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def _convolution(before: int, after: int, kind: Convolution) -> list[nn.Module]:
    normalise = [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    if kind == "standard":
        return [nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False), *normalise]
    return [
        nn.Conv2d(before, before, kernel_size=3, padding=1, groups=before, bias=False),
        nn.Conv2d(before, after, kernel_size=1, bias=False),
        *normalise,
    ]


def _nearest(size: int, stride: int) -> int:
    return max(stride, round(size / stride) * stride)
