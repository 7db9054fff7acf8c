"""The U-Net, from about two hundred parameters to eight million."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from kdsearch.config.student import UNetSpec
from kdsearch.models.blocks import initialise, require_divisible, stage, upsampled
from kdsearch.models.contract import Outputs


class UNet(nn.Module):
    """Encoder and decoder joined by skip connections (Ronneberger et al. 2015), with nearest-neighbour upsampling."""

    centred = True
    """Whether a cell of its maps looks at the place that it lies over; strided convolutions look to one side."""

    def __init__(self, spec: UNetSpec, *, classes: int) -> None:
        super().__init__()
        channels = spec.channels
        self.stride = spec.stride
        self.map_channels = {2**place: count for place, count in enumerate(channels)}
        build = partial(stage, convolutions=spec.convolutions, convolution=spec.convolution)
        self.encoder = nn.ModuleList(
            build(before, after) for before, after in zip((1, *channels[:-1]), channels, strict=True)
        )
        self.decoder = nn.ModuleList(
            build(deep + skip, skip) for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits N×C×H×W of images N×1×H×W; raises ShapeError unless the stride divides H and W."""
        return self.outputs(image).logits

    def outputs(self, image: Tensor) -> Outputs:
        """Logits and each stage's maps; raises ShapeError unless the stride divides H and W."""
        features = self.features(image)
        decoded = features[-1]
        for part, skip in zip(self.decoder, features[-2::-1], strict=True):
            decoded = part(upsampled(decoded, skip))
        return Outputs(logits=self.head(decoded), features=features)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """The encoder's maps N×K×h×w, the finest first; raises ShapeError unless the stride divides H and W."""
        require_divisible(image, self.stride)
        found: list[Tensor] = []
        maps = image
        for index, part in enumerate(self.encoder):
            maps = part(nn.functional.max_pool2d(maps, 2) if index else maps)
            found.append(maps)
        return tuple(found)

    def begin(self, seed: int) -> None:
        """Gives it the weights that its training begins with."""
        initialise(self, torch.Generator().manual_seed(seed))
