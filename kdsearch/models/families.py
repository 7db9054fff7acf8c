"""The families of students in one table; what a student costs is known here without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdsearch.config.student import FamilyName, StudentSpec, UNetSpec
from kdsearch.models.unet_cost import Convolution, unet_convolutions
from kdsearch.trials.scores import Cost

if TYPE_CHECKING:
    from kdsearch.models.students import StudentNetwork


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


FAMILIES: dict[FamilyName, Family] = {
    "unet": Family(spec=UNetSpec, network=_unet, convolutions=unet_convolutions),
}
