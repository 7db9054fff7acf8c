"""What a U-Net costs, by arithmetic and without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from kdsearch.config.student import UNetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A convolution, or several alike, as its cost sees it."""

    weights: int
    """Of its kernel: kernel height · kernel width · channels before / groups · channels after."""
    others: int
    """Biases, and scales and shifts of a batch norm behind it."""
    pixels: int
    """Of its output."""


def unet_convolutions(spec: UNetSpec, size: int) -> Iterator[Convolution]:
    """All that the network of one class computes on one image of that height and width."""
    channels = spec.channels
    for stage, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
        yield from _stage(before, after, spec, pixels=(size >> stage) ** 2)
    for stage, (after, deep) in enumerate(pairwise(channels)):
        yield from _stage(deep + after, after, spec, pixels=(size >> stage) ** 2)
    yield Convolution(weights=channels[0], others=1, pixels=size**2)


def _stage(before: int, after: int, spec: UNetSpec, *, pixels: int) -> Iterator[Convolution]:
    for index in range(spec.convolutions):
        inputs = after if index else before
        weights = 9 * inputs * after if spec.convolution == "standard" else (9 + after) * inputs
        yield Convolution(weights=weights, others=2 * after, pixels=pixels)
