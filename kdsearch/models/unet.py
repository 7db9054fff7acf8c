"""The U-Net, from about two hundred parameters to eight million."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdsearch.config.student import Convolution, UNetSpec
from kdsearch.errors import ShapeError


class UNet(nn.Module):
    """Encoder and decoder joined by skip connections (Ronneberger et al. 2015), with nearest-neighbour upsampling."""

    def __init__(self, spec: UNetSpec, *, classes: int) -> None:
        super().__init__()
        channels = spec.channels
        self.stride = spec.stride
        self.hidden_channels = channels[-1]
        self.encoder = nn.ModuleList(
            _stage(before, after, spec) for before, after in zip((1, *channels[:-1]), channels, strict=True)
        )
        self.decoder = nn.ModuleList(
            _stage(deep + skip, skip, spec) for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits N×C×H×W of images N×1×H×W."""
        return self.with_hidden(image)[0]

    def with_hidden(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits N×C×H×W and the encoder's output N×K×h×w; raises ShapeError unless the stride divides H and W."""
        self._check(image)
        skips: list[Tensor] = []
        features = image
        for index, stage in enumerate(self.encoder):
            features = stage(nn.functional.max_pool2d(features, 2) if index else features)
            skips.append(features)
        hidden = skips.pop()
        for stage in self.decoder:
            wide = nn.functional.interpolate(features, scale_factor=2.0, mode="nearest")
            features = stage(torch.cat([wide, skips.pop()], dim=1))
        return self.head(features), hidden

    def _check(self, image: Tensor) -> None:
        height, width = image.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ShapeError(
                f"images of {height}×{width} do not divide by the student's stride {self.stride}; "
                f"the nearest size that works is {_nearest(height, self.stride)}×{_nearest(width, self.stride)}"
            )


def _stage(before: int, after: int, spec: UNetSpec) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(spec.convolutions):
        layers += _convolution(before if index == 0 else after, after, spec.convolution)
    return nn.Sequential(*layers)


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
