"""Costs and feature maps of students, computed without torch, and a study's requirements for them."""

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
from kdsearch.config.task import Task, square
from kdsearch.errors import StudyFileError
from kdsearch.trials.scores import Cost


def cost_of(spec: StudentSpec, task: Task) -> Cost:
    """Computes a student's parameters, and its multiply-adds for one image.

    Raises EncoderError if its timm encoder cannot be built.
    """
    if isinstance(spec, UNetSpec):
        return total(unet_layers(spec, task))
    encoder, decoder = _timm_encoder(spec, task)[0], total(_timm_decoder_layers(spec, task))
    return Cost(params=encoder.params + decoder.params, macs=encoder.macs + decoder.macs)


def map_channels_of(spec: StudentSpec) -> dict[int, int]:
    """Returns the channels of a student's feature maps by stride, the finest first, the encoder's output last."""
    if isinstance(spec, UNetSpec):
        return {2**place: channels for place, channels in enumerate(spec.channels)}
    return _timm_encoder(spec, square(64))[1]


def _timm_encoder(spec: TimmSpec, task: Task) -> tuple[Cost, dict[int, int]]:
    from kdsearch.models.timm_student import encoder_cost  # imports torch

    return encoder_cost(spec.encoder, spec.depth, task)


def _timm_decoder_layers(spec: TimmSpec, task: Task) -> Iterator[Layer]:
    from kdsearch.models.timm_student import decoder_inputs  # imports torch

    for before, stride in decoder_inputs(spec, _timm_encoder(spec, task)[1]):
        pixels = task.pixels_at(stride)
        yield from stage_layers(before, spec.width, kind=spec.conv, count=spec.convs_per_stage, pixels=pixels)
    yield head_layer(spec.width, task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The sizes of a convolution that determine its cost."""

    weights: int
    """Kernel height · kernel width · input channels / groups · output channels."""
    others: int
    """Biases, or scales and shifts of the following batch norm."""
    pixels: int
    """Pixels of the output."""


def total(layers: Iterable[Layer]) -> Cost:
    """Adds up parameters and multiply-adds."""
    known = list(layers)
    return Cost(
        params=sum(layer.weights + layer.others for layer in known),
        macs=sum(layer.weights * layer.pixels for layer in known),
    )


def unet_layers(spec: UNetSpec, task: Task) -> Iterator[Layer]:
    """Yields all convolutions of a U-Net, for one image."""
    channels = spec.channels
    kind, count = spec.conv, spec.convs_per_stage
    for place, (before, after) in enumerate(zip((task.channels, *channels), channels, strict=False)):
        yield from stage_layers(before, after, kind=kind, count=count, pixels=task.pixels_at(2**place))
    for place, (after, deep) in enumerate(pairwise(channels)):
        yield from stage_layers(deep + after, after, kind=kind, count=count, pixels=task.pixels_at(2**place))
    yield head_layer(channels[0], task)


def stage_layers(before: int, after: int, *, kind: Convolution, count: int, pixels: int) -> Iterator[Layer]:
    """Yields the ``count`` 3×3 convolutions, with batch norms, of a stage from ``before`` to ``after`` channels."""
    for index in range(count):
        inputs = after if index else before
        weights = 9 * inputs * after if kind == "standard" else (9 + after) * inputs
        yield Layer(weights=weights, others=2 * after, pixels=pixels)


def head_layer(channels: int, task: Task) -> Layer:
    """Returns the 1×1 convolution to the logits."""
    return Layer(weights=channels * task.outputs, others=task.outputs, pixels=task.pixels_at(1))


def over_limit(cost: Cost, limits: Limits) -> str:
    """Explains which hard limit the cost exceeds; empty if none."""
    for name in ("params", "macs"):
        limit, value = getattr(limits, name), getattr(cost, name)
        if limit is not None and value > limit:
            return f"{format_quantity(value)} {name} are over the limit of {format_quantity(limit)}"
    return ""


def how_far_over(cost: Cost, limits: Limits) -> float:
    """Returns the decimal logarithm of the largest ratio of a cost to its limit; at most 0 if no limit is exceeded."""
    pairs = ((cost.params, limits.params), (cost.macs, limits.macs))
    return max((math.log10(value / limit) for value, limit in pairs if limit is not None), default=0.0)


def require_possible_limits(study: StudyConfig) -> None:
    """Raises StudyFileError if every student of the search space exceeds ``search.limits``."""
    task = study.data.task
    for name in ("params", "macs"):
        limit = getattr(study.search.limits, name)
        if limit is None:
            continue
        least = min(getattr(cost_of(spec, task), name) for spec in extreme_students(study))
        if least > limit:
            raise StudyFileError(
                f"search.limits.{name}: the smallest student of the search space has {format_quantity(least)} {name}, "
                f"more than the limit of {format_quantity(limit)}; raise the limit, or search smaller students"
            )


def require_comparable(study: StudyConfig) -> None:
    """Raises StudyFileError if a network lacks feature maps of a stride, or channels differ for ``path: hidden``.

    Raises EncoderError if one of the smallest or largest students of the search space cannot be built.
    """
    for spec in extreme_students(study):
        cost_of(spec, study.data.task)
    wanted = [one for one in comparisons_of(study) if _needs_channels(one) or one.stride not in (None, "every")]
    if not wanted:
        return
    assert isinstance(study.teacher, TeacherConfig), "the study file's check requires it for feature maps"
    from kdsearch.models.teacher import map_channels  # imports torch

    given = map_channels(study.teacher, study.data.task)
    for one in wanted:
        _require(study, one, given)


def _needs_channels(one: Comparison) -> bool:
    return one.path == "hidden" and one.loss not in ANY_CHANNELS


def _require(study: StudyConfig, one: Comparison, given: dict[int, int]) -> None:
    path, stride = one.path, one.stride
    assert stride != "every", "it uses only strides that both networks have"
    if stride is not None and stride not in given:
        raise StudyFileError(
            f"distillation: {path} compares feature maps of stride {stride}, but the teacher has strides "
            f"{_listed(given)}; use one of these, or change teacher.encoder or encoder_depth"
        )
    teacher = given[stride or max(given)]
    for spec in extreme_students(study):
        own = map_channels_of(spec)
        if stride is not None and stride not in own:
            raise StudyFileError(
                f"distillation: {path} compares feature maps of stride {stride}, but a {spec.describe()} has strides "
                f"{_listed(own)}; use one of these, or search deeper students"
            )
        student = own[stride or max(own)]
        if _needs_channels(one) and student != teacher:
            raise StudyFileError(
                f"distillation: hidden {one.loss} compares feature maps channel by channel, but the teacher has "
                f"{teacher} channels and a {spec.describe()} has {student}; use attention or regressor, loss "
                f"{' or '.join(sorted(ANY_CHANNELS))}, or search students with {teacher} channels"
            )


def _listed(known: dict[int, int]) -> str:
    return ", ".join(str(stride) for stride in sorted(known))
