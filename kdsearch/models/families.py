"""The families of students in one table; what a student costs is known here without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from kdsearch.config.student import FamilyName, StudentSpec, UNetSpec
from kdsearch.trials.scores import Cost

if TYPE_CHECKING:
    from kdsearch.models.students import StudentNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A convolution, or several alike, as its cost sees it."""

    weights: int
    """Of its kernel: kernel height · kernel width · channels before / groups · channels after."""
    others: int
    """Biases, and scales and shifts of a batch norm behind it."""
    pixels: int
    """Of its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of student network."""

    spec: type[StudentSpec]
    """Its settings, their ranges, stride and description."""
    network: Callable[[StudentSpec, int], StudentNetwork]
    """The network of a spec for so many classes, on torch's current device."""
    convolutions: Callable[[StudentSpec, int], Iterator[Convolution]]
    """All that a network of one class computes on one image of that height and width."""


def cost_of(spec: StudentSpec, *, size: int) -> Cost:
    """Parameters and multiply-adds of the student for one image of ``size``×``size``."""
    parts = list(FAMILIES[spec.family].convolutions(spec, size))
    return Cost(
        params=sum(part.weights + part.others for part in parts), macs=sum(part.weights * part.pixels for part in parts)
    )


def _unet(spec: UNetSpec, classes: int) -> StudentNetwork:
    from kdsearch.models.unet import UNet  # brings torch

    return UNet(spec, classes=classes)


def _unet_convolutions(spec: UNetSpec, size: int) -> Iterator[Convolution]:
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


FAMILIES: dict[FamilyName, Family] = {
    "unet": Family(spec=UNetSpec, network=_unet, convolutions=_unet_convolutions),
}
