"""What convolutions cost, by arithmetic and without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from kdsearch.config.student import Convolution, UNetSpec
from kdsearch.trials.scores import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution, or several alike, as its cost sees it."""

    weights: int
    """Of its kernel: kernel height · kernel width · channels before / groups · channels after."""
    others: int
    """Biases, and scales and shifts of a batch norm behind it."""
    pixels: int
    """Of its output."""


def total(layers: Iterable[Layer]) -> Cost:
    """Parameters and multiply-adds of all of them."""
    known = list(layers)
    return Cost(
        params=sum(layer.weights + layer.others for layer in known),
        macs=sum(layer.weights * layer.pixels for layer in known),
    )


def unet_layers(spec: UNetSpec, size: int) -> Iterator[Layer]:
    """All that the network of one class computes on one image of that height and width."""
    channels = spec.channels
    kind, count = spec.convolution, spec.convolutions
    for place, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
        yield from stage_layers(before, after, kind=kind, count=count, pixels=(size >> place) ** 2)
    for place, (after, deep) in enumerate(pairwise(channels)):
        yield from stage_layers(deep + after, after, kind=kind, count=count, pixels=(size >> place) ** 2)
    yield head_layer(channels[0], size)


def stage_layers(before: int, after: int, *, kind: Convolution, count: int, pixels: int) -> Iterator[Layer]:
    """So many 3×3 convolutions with batch norms, from ``before`` to ``after`` channels."""
    for index in range(count):
        inputs = after if index else before
        weights = 9 * inputs * after if kind == "standard" else (9 + after) * inputs
        yield Layer(weights=weights, others=2 * after, pixels=pixels)


def head_layer(channels: int, size: int) -> Layer:
    """The 1×1 convolution to the logits of one class."""
    return Layer(weights=channels, others=1, pixels=size**2)
