"""The U-Net, from about two hundred parameters to eight million."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdsearch.config.student import Convolution, UNetSpec
from kdsearch.errors import ShapeError
from kdsearch.models.contract import Outputs


class UNet(nn.Module):
    """Encoder and decoder joined by skip connections (Ronneberger et al. 2015), with nearest-neighbour upsampling."""

    def __init__(self, spec: UNetSpec, *, classes: int) -> None:
        super().__init__()
        channels = spec.channels
        self.stride = spec.stride
        self.feature_channels = channels
        self.encoder = nn.ModuleList(
            _stage(before, after, spec) for before, after in zip((1, *channels[:-1]), channels, strict=True)
        )
        self.decoder = nn.ModuleList(
            _stage(deep + skip, skip, spec) for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits N×C×H×W of images N×1×H×W; raises ShapeError unless the stride divides H and W."""
        return self.outputs(image).logits

    def outputs(self, image: Tensor) -> Outputs:
        """Logits and each stage's maps; raises ShapeError unless the stride divides H and W."""
        features = self.features(image)
        decoded = features[-1]
        for stage, skip in zip(self.decoder, features[-2::-1], strict=True):
            wide = nn.functional.interpolate(decoded, scale_factor=2.0, mode="nearest")
            decoded = stage(torch.cat([wide, skip], dim=1))
        return Outputs(logits=self.head(decoded), features=features)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """The encoder's maps N×K×h×w, the finest first; raises ShapeError unless the stride divides H and W."""
        self._check(image)
        found: list[Tensor] = []
        maps = image
        for index, stage in enumerate(self.encoder):
            maps = stage(nn.functional.max_pool2d(maps, 2) if index else maps)
            found.append(maps)
        return tuple(found)

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
