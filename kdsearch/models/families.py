"""The families of students in one table; what a U-Net costs is known here without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kdsearch.config.quantity import format_quantity
from kdsearch.config.space import extreme_students
from kdsearch.config.student import FamilyName, StudentSpec, TimmSpec, UNetSpec
from kdsearch.config.study import StudyConfig
from kdsearch.errors import StudyFileError
from kdsearch.models.costs import Layer, head_layer, stage_layers, total, unet_layers
from kdsearch.trials.scores import Cost

if TYPE_CHECKING:
    from kdsearch.models.students import StudentNetwork

S = TypeVar("S", bound=StudentSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family(Generic[S]):
    """One kind of student network."""

    spec: type[S]
    """Its settings, their ranges, stride and description."""
    network: Callable[[S, int], StudentNetwork]
    """The network of a spec for so many classes, on torch's current device, its weights yet to be begun."""
    cost: Callable[[S, int], Cost]
    """Of the network of one class for one image of that height and width."""
    map_channels: Callable[[S], dict[int, int]]
    """Channels of its encoder's maps by their stride, the finest first."""


def cost_of(spec: StudentSpec, *, size: int) -> Cost:
    """Parameters and multiply-adds of the student for one image of ``size``×``size``."""
    return FAMILIES[spec.family].cost(spec, size)


def require_possible_limits(study: StudyConfig) -> None:
    """Raises StudyFileError where no student of the space is within ``search.limits``, whatever is drawn."""
    size = study.data.size
    for name in ("params", "macs"):
        limit = getattr(study.search.limits, name)
        if limit is None:
            continue
        least = min(getattr(cost_of(spec, size=size), name) for spec in extreme_students(study))
        if least > limit:
            raise StudyFileError(
                f"search.limits.{name}: the smallest student of the space has {format_quantity(least)} {name}, more "
                f"than the limit of {format_quantity(limit)}; raise the limit, or search smaller students"
            )


def map_channels_of(spec: StudentSpec) -> dict[int, int]:
    """Channels of the student's maps by their stride, the finest first, the encoder's output last."""
    return FAMILIES[spec.family].map_channels(spec)


def _unet(spec: UNetSpec, classes: int) -> StudentNetwork:
    from kdsearch.models.unet import UNet  # brings torch

    return UNet(spec, classes=classes)


def _unet_cost(spec: UNetSpec, size: int) -> Cost:
    return total(unet_layers(spec, size))


def _unet_maps(spec: UNetSpec) -> dict[int, int]:
    return {2**place: channels for place, channels in enumerate(spec.channels)}


def _timm(spec: TimmSpec, classes: int) -> StudentNetwork:
    from kdsearch.models.timm_student import TimmStudent  # brings torch

    return TimmStudent(spec, classes=classes)


def _timm_cost(spec: TimmSpec, size: int) -> Cost:
    from kdsearch.models.timm_student import decoder_inputs, encoder_cost  # brings torch

    encoder, channels = encoder_cost(spec.encoder, spec.depth, size=size)

    def layers() -> Iterator[Layer]:
        for before, stride in decoder_inputs(spec, channels):
            pixels = (size // stride) ** 2
            yield from stage_layers(before, spec.width, kind=spec.convolution, count=spec.convolutions, pixels=pixels)
        yield head_layer(spec.width, size)

    decoder = total(layers())
    return Cost(params=encoder.params + decoder.params, macs=encoder.macs + decoder.macs)


def _timm_maps(spec: TimmSpec) -> dict[int, int]:
    from kdsearch.models.timm_student import encoder_cost  # brings torch

    return encoder_cost(spec.encoder, spec.depth, size=64)[1]


FAMILIES: dict[FamilyName, Family[Any]] = {
    "unet": Family(spec=UNetSpec, network=_unet, cost=_unet_cost, map_channels=_unet_maps),
    "timm": Family(spec=TimmSpec, network=_timm, cost=_timm_cost, map_channels=_timm_maps),
}
