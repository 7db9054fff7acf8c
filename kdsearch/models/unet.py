"""The U-Net, with about 200 to 8 million parameters, and inheritance of weights."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from kdsearch.config.networks import Convolution, UNetSpec
from kdsearch.errors import ShapeError
from kdsearch.models.contract import INPUT_MEAN, INPUT_STD, Outputs, normalize


def stage(before: int, after: int, *, convs_per_stage: int, conv: Convolution) -> nn.Sequential:
    """Builds a stage of 3×3 convolutions, each with batch norm and ReLU, from ``before`` to ``after`` channels."""
    layers: list[nn.Module] = []
    for index in range(convs_per_stage):
        layers += _convolution(before if index == 0 else after, after, conv)
    return nn.Sequential(*layers)


def upsampled(maps: Tensor, skip: Tensor | None) -> Tensor:
    """Doubles height and width (nearest), then appends the skip's channels."""
    wide = nn.functional.interpolate(maps, scale_factor=2.0, mode="nearest")
    return wide if skip is None else torch.cat([wide, skip], dim=1)


def require_divisible(image: Tensor, stride: int) -> None:
    """Raises ShapeError unless the stride divides the image's height and width."""
    height, width = image.shape[-2:]
    if height % stride or width % stride:
        raise ShapeError(
            f"the student's stride {stride} must divide the image size, got {height}×{width}; "
            f"the nearest size that works is {_nearest(height, stride)}×{_nearest(width, stride)}"
        )


def initialize(model: nn.Module, generator: torch.Generator) -> None:
    """Draws He-normal weights for convolutions (He et al. 2015) and resets batch norms."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def _convolution(before: int, after: int, kind: Convolution) -> list[nn.Module]:
    normalize = [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    if kind == "standard":
        return [nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False), *normalize]
    return [
        nn.Conv2d(before, before, kernel_size=3, padding=1, groups=before, bias=False),
        nn.Conv2d(before, after, kernel_size=1, bias=False),
        *normalize,
    ]


def _nearest(size: int, stride: int) -> int:
    return max(stride, round(size / stride) * stride)


class ChannelStatistics(nn.Module):
    """Scales each channel of color images to mean 0 and standard deviation 1 over the training images."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def measure(self, pixels: Tensor) -> None:
        """Measures images N×C×H×W of values 0-255."""
        levels = torch.arange(256, device=pixels.device, dtype=torch.float64)
        counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)])
        shares = counts.double() / counts.sum(dim=1, keepdim=True)
        mean = shares @ levels
        std = (shares @ levels.square() - mean.square()).clamp_min(1.0).sqrt()
        self.mean.copy_(((mean / 255 - INPUT_MEAN) / INPUT_STD).reshape(self.mean.shape))
        self.std.copy_((std / 255 / INPUT_STD).reshape(self.std.shape))

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class UNet(nn.Module):
    """Encoder and decoder with skip connections (Ronneberger et al. 2015) and nearest upsampling."""

    centered = True
    """Whether a cell of a feature map is centered on its receptive field; strided convolutions shift it."""

    def __init__(self, spec: UNetSpec, *, channels: int, outputs: int) -> None:
        """Takes the channels of images and logits."""
        super().__init__()
        widths = spec.channels
        self.statistics = ChannelStatistics(channels) if channels > 1 else None
        self.stride = spec.stride
        self.map_channels = {2**place: count for place, count in enumerate(widths)}
        build = partial(stage, convs_per_stage=spec.convs_per_stage, conv=spec.conv)
        self.encoder = nn.ModuleList(
            build(before, after) for before, after in zip((channels, *widths[:-1]), widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            build(deep + skip, skip) for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], outputs, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Computes logits N×K×H×W of images N×C×H×W; raises ShapeError unless the stride divides H and W."""
        return self.outputs(image).logits

    def outputs(self, image: Tensor) -> Outputs:
        """Computes logits and feature maps; raises ShapeError unless the stride divides H and W."""
        features = self.features(image)
        decoded = features[-1]
        for part, skip in zip(self.decoder, features[-2::-1], strict=True):
            decoded = part(upsampled(decoded, skip))
        return Outputs(logits=self.head(decoded), features=features)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Computes feature maps N×K×h×w, the finest first; raises ShapeError unless the stride divides H and W."""
        require_divisible(image, self.stride)
        found: list[Tensor] = []
        maps = image if self.statistics is None else self.statistics(image)
        for index, part in enumerate(self.encoder):
            maps = part(nn.functional.max_pool2d(maps, 2) if index else maps)
            found.append(maps)
        return tuple(found)

    def begin(self, seed: int) -> None:
        """Draws the initial weights from the seed."""
        initialize(self, torch.Generator().manual_seed(seed))


BATCH = 64
"""Batch norms are measured on at most this many images at a time."""


@torch.no_grad()
def inherit(student: UNet, donor: UNet, pixels: Tensor) -> None:
    """Copies the donor's channels with the largest L1 norms to the student, layer by layer (Li et al. 2017).

    Then measures the statistics of all batch norms on images N×C×H×W of values 0-255.
    """
    kept = [torch.arange(pixels.shape[1], device=pixels.device)]
    for mine, theirs in zip(_stages(student.encoder), _stages(donor.encoder), strict=True):
        kept.append(_cut(mine, theirs, kept[-1]))
    skips, deep = kept[1:-1], kept[-1]
    widths = list(donor.map_channels.values())[:0:-1]
    stages = zip(_stages(student.decoder), _stages(donor.decoder), strict=True)
    for (mine, theirs), skip, width in zip(stages, reversed(skips), widths, strict=True):
        deep = _cut(mine, theirs, torch.cat([deep, skip + width]))  # the skip's channels follow the deep ones
    student.head.weight.copy_(donor.head.weight[:, deep])
    assert student.head.bias is not None, "a U-Net's head has a bias"
    assert donor.head.bias is not None, "a U-Net's head has a bias"
    student.head.bias.copy_(donor.head.bias)
    _measure(student, pixels)


def _stages(parts: nn.ModuleList) -> list[nn.Sequential]:
    return [part for part in parts if isinstance(part, nn.Sequential)]


def _cut(mine: nn.Sequential, theirs: nn.Sequential, kept: Tensor) -> Tensor:
    """Copies the donor's stage for the inputs ``kept``; returns the indices of the outputs that were copied."""
    for layer, donor in zip(mine, theirs, strict=True):
        if isinstance(layer, nn.BatchNorm2d):
            assert isinstance(donor, nn.BatchNorm2d)
            layer.weight.copy_(donor.weight[kept])
            layer.bias.copy_(donor.bias[kept])
        elif isinstance(layer, nn.Conv2d):
            assert isinstance(donor, nn.Conv2d)
            if layer.groups == layer.in_channels == layer.out_channels:
                layer.weight.copy_(donor.weight[kept])
                continue
            norms = donor.weight[:, kept].abs().sum(dim=(1, 2, 3))
            chosen = norms.topk(layer.out_channels).indices.sort().values
            layer.weight.copy_(donor.weight[chosen][:, kept])
            kept = chosen
    return kept


def _measure(student: UNet, pixels: Tensor) -> None:
    """Sets the batch norms' statistics to the mean over batches."""
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    student.train()
    for part in pixels.tensor_split(math.ceil(len(pixels) / BATCH)):  # equal sizes, because all batches weigh the same
        student(normalize(part))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
