"""What students cost and which maps they have, by arithmetic and without torch, and what a study asks of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from kdsearch.config.distillation import ANY_CHANNELS
from kdsearch.config.networks import Convolution, StudentSpec, TeacherConfig, TimmSpec, UNetSpec
from kdsearch.config.quantity import format_quantity
from kdsearch.config.search import Limits
from kdsearch.config.space import Comparison, comparisons_of, extreme_students
from kdsearch.config.study import StudyConfig
from kdsearch.errors import StudyFileError
from kdsearch.trials.scores import Cost


def cost_of(spec: StudentSpec, *, size: int) -> Cost:
    """Parameters and multiply-adds of the student with one class for one image of ``size``×``size``.

    Raises EncoderError if the student has an encoder of timm that cannot be built.
    """
    if isinstance(spec, UNetSpec):
        return total(unet_layers(spec, size))
    encoder, decoder = _timm_encoder(spec, size=size)[0], total(_timm_decoder_layers(spec, size))
    return Cost(params=encoder.params + decoder.params, macs=encoder.macs + decoder.macs)


def map_channels_of(spec: StudentSpec) -> dict[int, int]:
    """Channels of the student's encoder maps by their stride, the finest first, the encoder's output last."""
    if isinstance(spec, UNetSpec):
        return {2**place: channels for place, channels in enumerate(spec.channels)}
    return _timm_encoder(spec, size=64)[1]


def _timm_encoder(spec: TimmSpec, *, size: int) -> tuple[Cost, dict[int, int]]:
    from kdsearch.models.timm_student import encoder_cost  # brings torch

    return encoder_cost(spec.encoder, spec.depth, size=size)


def _timm_decoder_layers(spec: TimmSpec, size: int) -> Iterator[Layer]:
    from kdsearch.models.timm_student import decoder_inputs  # brings torch

    for before, stride in decoder_inputs(spec, _timm_encoder(spec, size=size)[1]):
        pixels = (size // stride) ** 2
        yield from stage_layers(before, spec.width, kind=spec.conv, count=spec.convs_per_stage, pixels=pixels)
    yield head_layer(spec.width, size)


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
    kind, count = spec.conv, spec.convs_per_stage
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


def over_limit(cost: Cost, limits: Limits) -> str:
    """Why the cost is over a hard limit; empty where it is not."""
    for name in ("params", "macs"):
        limit, value = getattr(limits, name), getattr(cost, name)
        if limit is not None and value > limit:
            return f"{format_quantity(value)} {name} are over the limit of {format_quantity(limit)}"
    return ""


def how_far_over(cost: Cost, limits: Limits) -> float:
    """The decimal logarithm of the largest excess over a limit on size; not above 0 where there is none."""
    pairs = ((cost.params, limits.params), (cost.macs, limits.macs))
    return max((math.log10(value / limit) for value, limit in pairs if limit is not None), default=0.0)


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


def require_comparable(study: StudyConfig) -> None:
    """Raises StudyFileError where a network lacks maps of a stride, or ``hidden`` would compare unequal channels.

    Raises EncoderError where a student at a corner of the space cannot be built.
    """
    for spec in extreme_students(study):
        cost_of(spec, size=study.data.size)
    wanted = [one for one in comparisons_of(study) if _needs_channels(one) or one.stride not in (None, "every")]
    if not wanted:
        return
    assert isinstance(study.teacher, TeacherConfig), "study files refuse hidden maps of other teachers"
    from kdsearch.models.teacher import map_channels  # brings torch

    given = map_channels(study.teacher, size=study.data.size)
    for one in wanted:
        _require(study, one, given)


def _needs_channels(one: Comparison) -> bool:
    return one.path == "hidden" and one.loss not in ANY_CHANNELS


def _require(study: StudyConfig, one: Comparison, given: dict[int, int]) -> None:
    path, stride = one.path, one.stride
    assert stride != "every", "that is of whatever both have"
    if stride is not None and stride not in given:
        raise StudyFileError(
            f"distillation: {path} compares maps of stride {stride}, and the teacher has them of "
            f"{_listed(given)}; write one of those, or another teacher.encoder or encoder_depth"
        )
    teacher = given[stride or max(given)]
    for spec in extreme_students(study):
        own = map_channels_of(spec)
        if stride is not None and stride not in own:
            raise StudyFileError(
                f"distillation: {path} compares maps of stride {stride}, and a {spec.describe()} has them of "
                f"{_listed(own)}; write one of those, or search deeper students"
            )
        student = own[stride or max(own)]
        if _needs_channels(one) and student != teacher:
            raise StudyFileError(
                f"distillation: hidden {one.loss} compares maps channel by channel, but the teacher's have {teacher} "
                f"channels and those of a {spec.describe()} {student}; write attention or regressor, loss "
                f"{' or '.join(sorted(ANY_CHANNELS))}, or search students with as many channels"
            )


def _listed(known: dict[int, int]) -> str:
    return ", ".join(str(stride) for stride in sorted(known))
