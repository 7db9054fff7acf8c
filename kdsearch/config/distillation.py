"""The ``distillation`` section: what the student learns from the teacher, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field

from kdsearch.config.ranges import Choice, Fixed, FloatSearch, Section, Space, WordSearch, training_rule
from kdsearch.config.training import Fraction

DistilledPath = Literal["logits", "hidden", "attention", "regressor"]
Path = Literal["none", "logits", "hidden", "attention", "regressor"]
Loss = Literal["mse", "kld", "dml", "cwd", "pkd", "affinity", "region"]
View = Literal["same", "weak"]
LossMix = Literal["add", "interpolate"]
LOSSES: dict[DistilledPath, tuple[Loss, ...]] = {
    "logits": ("mse", "kld", "dml", "cwd"),
    "hidden": ("mse", "kld", "cwd", "pkd", "affinity", "region"),
    "attention": ("mse", "kld"),
    "regressor": ("mse", "kld", "cwd", "pkd"),
}
"""What each path can be compared by."""
ANY_CHANNELS: frozenset[Loss] = frozenset({"affinity", "region"})
"""Losses that compare places with places, whatever the number of channels."""
NEEDS_MASKS: frozenset[Loss] = frozenset({"region"})
"""Losses that nothing can be learnt by where an image has no mask."""
BY_PIXEL: frozenset[Loss] = frozenset({"mse", "kld", "dml"})
"""Losses of logits in which each pixel has a part of its own, which ``boundary`` can weight."""
Stride = Literal[1, 2, 4, 8, 16, 32]
AttentionStride = Literal[1, 2, 4, 8, 16, 32, "every"]
LossWord = Literal["default", "mse", "kld", "dml", "cwd", "pkd", "affinity", "region"]
DEFAULT_LOSS: dict[DistilledPath, Loss] = {"logits": "dml", "hidden": "mse", "attention": "mse", "regressor": "mse"}
"""What each path is compared by where none is named."""


Weight = Fraction
Temperature = Annotated[float, Field(gt=0, le=100)]
Boundary = Annotated[float, Field(ge=0, le=10)]
DEFAULT_TEMPERATURE = 2.0


class DistillationSpace(Section):
    """A single term, or ``none`` for students without a teacher."""

    path: WordSearch[Path] = "logits"
    """What the student imitates: nothing (``none``), the ``logits``, the encoder's output channel by channel
    (``hidden``; needs equal channels), where that output is active (``attention``), or the encoder's output after a
    small learned network (``regressor``)."""
    loss: WordSearch[LossWord] = "default"
    """How the two are compared. ``usual``: ``dml`` for ``logits``, ``mse`` for the others. ``mse``: mean squared error.
    ``kld``: Kullback-Leibler divergence. ``dml`` (``logits`` only): the supervised loss against the teacher's
    probabilities. ``cwd``: each channel's distribution over the image. ``pkd``: correlation of each channel.
    ``affinity`` and ``region`` (``hidden`` only, any number of channels): similarity between positions, and to the mean
    of their class. Each path uses those of a choice that fit."""
    teacher_view: WordSearch[View] = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image.
    Logits in the weak view are computed once per study, everything else at each step, except cached feature maps."""
    weight: FloatSearch[Weight] = 1.0
    """How much distillation counts in the loss; see ``loss_mix``."""
    loss_mix: Fixed[LossMix] = "add"
    """``added``: supervised + weight · distillation, on a common scale for all paths. ``shared``, as in the paper:
    weight · distillation + (1 - weight) · supervised, unscaled."""
    temperature: FloatSearch[Temperature] = 2.0
    """Softens both distributions for ``kld`` on logits and for ``cwd``; the loss is multiplied by its square."""
    boundary: FloatSearch[Boundary] = 0.0
    """How much more pixels near an outline count, for ``mse``, ``kld`` and ``dml`` on logits."""

    @training_rule
    def _nothing_idle(self) -> DistillationSpace:
        fields = type(self).model_fields
        given = {name for name in self.model_fields_set - {"path"} if getattr(self, name) != fields[name].default}
        if self.path == "none" and given:
            raise ValueError(
                f"path none distils nothing, so {', '.join(sorted(given))} would be without effect; remove it"
            )
        paths = [path for path in _choices(self.path) if path != "none"]
        pairs = [(path, loss) for path in paths for loss in self.losses_of(path)]
        if "temperature" in given and not any(is_softened(*pair) for pair in pairs):
            raise ValueError(
                "temperature has an effect on path logits with loss kld, and on loss cwd, alone; remove it"
            )
        if "boundary" in given and not any(is_by_pixel(*pair) for pair in pairs):
            raise ValueError("boundary has an effect on path logits with losses mse, kld and dml alone; remove it")
        for path in paths:
            if not self.losses_of(path):
                raise ValueError(f"path {path} can be compared by {', '.join(LOSSES[path])}; add one to loss")
        return self

    def losses_of(self, path: DistilledPath) -> tuple[Loss, ...]:
        """The losses of this section that the path can be compared by."""
        named = [DEFAULT_LOSS[path] if loss == "default" else loss for loss in _choices(self.loss)]
        return tuple(dict.fromkeys(loss for loss in named if loss in LOSSES[path]))


def is_softened(path: DistilledPath, loss: Loss) -> bool:
    """Whether a temperature has a part in the comparison."""
    return loss == "cwd" or (path, loss) == ("logits", "kld")


def is_by_pixel(path: DistilledPath, loss: Loss) -> bool:
    """Whether pixels can be weighted in the comparison."""
    return path == "logits" and loss in BY_PIXEL


def _choices(value: Any) -> tuple[Any, ...]:
    return value.choice if isinstance(value, Choice) else (value,)


class MseTerm(Section):
    """Mean squared error."""

    path: Fixed[DistilledPath]
    """What is compared."""
    loss: Fixed[Literal["mse"]]
    """Mean squared error."""
    stride: AttentionStride | None = None
    """Image pixels per cell of the compared feature maps; ``every`` (for ``attention``) compares all that both networks
    have. Default: the encoders' outputs."""
    weight: Weight = 1.0
    """How much the term counts in the loss."""
    teacher_view: View = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image."""

    boundary: Boundary | None = None
    """How much more pixels near an outline count if logits are compared. Default: 0."""

    @training_rule
    def _of_what_is_compared(self) -> Self:
        _require_maps(self)
        _require_pixels(self)
        return self


class KldTerm(Section):
    """Kullback-Leibler divergence from the teacher's distribution."""

    path: Fixed[DistilledPath]
    """What is compared."""
    loss: Fixed[Literal["kld"]]
    """Kullback-Leibler divergence."""
    stride: AttentionStride | None = None
    """Image pixels per cell of the compared feature maps; ``every`` (for ``attention``) compares all that both networks
    have. Default: the encoders' outputs."""
    weight: Weight = 1.0
    """How much the term counts in the loss."""
    teacher_view: View = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image."""
    temperature: Temperature | None = None
    """Softens both distributions, on logits only. Default: 2."""
    boundary: Boundary | None = None
    """How much more pixels near an outline count if logits are compared. Default: 0."""

    @training_rule
    def _of_what_is_compared(self) -> Self:
        if self.temperature is not None and self.path != "logits":
            raise ValueError("temperature has an effect on logits alone; remove it")
        _require_maps(self)
        _require_pixels(self)
        return self


class CwdTerm(Section):
    """Channel-wise distillation: divergence of each channel's distribution over the image."""

    path: Fixed[Literal["logits", "hidden", "regressor"]]
    """What is compared. On a single channel of logits, it cannot teach the threshold."""
    loss: Fixed[Literal["cwd"]]
    """Channel-wise distillation (Shu et al. 2021)."""
    stride: Stride | None = None
    """Image pixels per cell of the compared feature maps. Default: the encoders' outputs."""
    weight: Weight = 1.0
    """How much the term counts in the loss."""
    teacher_view: View = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image."""
    temperature: Temperature = DEFAULT_TEMPERATURE
    """Softens both distributions; the paper uses 4."""

    @training_rule
    def _stride_of_maps(self) -> Self:
        _require_maps(self)
        return self


class PkdTerm(Section):
    """Pearson's correlation of each channel, over images and positions."""

    path: Fixed[Literal["hidden", "regressor"]]
    """What is compared."""
    loss: Fixed[Literal["pkd"]]
    """One minus the correlation (Cao et al. 2022)."""
    stride: Stride | None = None
    """Image pixels per cell of the compared feature maps. Default: the encoders' outputs."""
    weight: Weight = 1.0
    """How much the term counts in the loss."""
    teacher_view: View = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image."""


class AffinityTerm(Section):
    """Cosines between all pairs of positions; needs no equal channels."""

    path: Fixed[Literal["hidden"]]
    """What is compared."""
    loss: Fixed[Literal["affinity"]]
    """Squared difference of the cosines of pooled positions (Liu et al. 2019)."""
    stride: Stride | None = None
    """Image pixels per cell of the compared feature maps. Default: the encoders' outputs."""
    weight: Weight = 1.0
    """How much the term counts in the loss."""
    teacher_view: View = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image."""


class RegionTerm(Section):
    """Cosine of each position to the mean of its class; needs no equal channels."""

    path: Fixed[Literal["hidden"]]
    """What is compared."""
    loss: Fixed[Literal["region"]]
    """Squared difference of the cosines to class prototypes (Wang et al. 2020)."""
    stride: Stride | None = None
    """Image pixels per cell of the compared feature maps. Default: the encoders' outputs."""
    weight: Weight = 1.0
    """How much the term counts in the loss."""
    teacher_view: View = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image."""


class DmlTerm(Section):
    """The supervised loss with the teacher's probabilities instead of the mask."""

    path: Fixed[Literal["logits"]]
    """What is compared."""
    loss: Fixed[Literal["dml"]]
    """Cross-entropy and Dice against probabilities."""
    weight: Weight = 1.0
    """How much the term counts in the loss."""
    teacher_view: View = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image."""
    boundary: Boundary | None = None
    """How much more pixels near an outline count. Default: 0."""


def _require_maps(term: MseTerm | KldTerm | CwdTerm) -> None:
    """Raises ValueError where logits are given a stride, or others than attention every one."""
    if term.path == "logits" and term.stride is not None:
        raise ValueError("stride is of hidden, attention and regressor; remove it, or compare one of those")
    if term.path != "attention" and term.stride == "every":
        raise ValueError("stride every is of attention alone; name one of 1, 2, 4, 8, 16, 32")


def _require_pixels(term: MseTerm | KldTerm) -> None:
    """Raises ValueError where maps, whose cells are no pixels, are given a boundary."""
    if term.path != "logits" and term.boundary is not None:
        raise ValueError("boundary is of logits; remove it")


Term: TypeAlias = MseTerm | KldTerm | DmlTerm | CwdTerm | PkdTerm | AffinityTerm | RegionTerm
"""A type for each loss."""
TermSpace = Annotated[
    Space[MseTerm]
    | Space[KldTerm]
    | Space[DmlTerm]
    | Space[CwdTerm]
    | Space[PkdTerm]
    | Space[AffinityTerm]
    | Space[RegionTerm],
    Field(discriminator="loss"),
]


class DistillationSpec(Section):
    """What a student learns from the teacher, with every value chosen."""

    terms: Annotated[tuple[Annotated[Term, Field(discriminator="loss")], ...], Field(min_length=1)]
    loss_mix: LossMix

    @property
    def path(self) -> str:
        """What the terms compare, such as ``logits`` or ``logits+attention``."""
        return "+".join(term.path for term in self.terms)

    def summary(self) -> str:
        """``logits dml`` or ``attention at 8 mse``, a term after the other."""
        return " + ".join(
            f"{term.path}{'' if (stride := getattr(term, 'stride', None)) is None else f' at {stride}'} {term.loss}"
            for term in self.terms
        )


def teaches_without_masks(spec: DistillationSpec | None) -> bool:
    """Whether a student of that distillation learns from images without a mask."""
    return spec is not None and any(term.loss not in NEEDS_MASKS for term in spec.terms)


def temperature_of(term: Term) -> float | None:
    """By which the term softens logits; None where it softens nothing."""
    return term.temperature if isinstance(term, KldTerm | CwdTerm) else None


def boundary_of(term: Term) -> float:
    """How much more the term lets pixels at a lesion's outline count."""
    return term.boundary or 0.0 if isinstance(term, MseTerm | KldTerm | DmlTerm) else 0.0


def stride_of(term: Term) -> Stride | None:
    """Of the maps that the term compares; None where it compares logits or the encoders' outputs."""
    if isinstance(term, DmlTerm):
        return None
    assert term.stride != "every", "the strides are known by now; see at_strides"
    return term.stride


def asks_for_every_stride(spec: DistillationSpec) -> bool:
    """Whether a term compares maps of every stride."""
    return any(not isinstance(term, DmlTerm) and term.stride == "every" for term in spec.terms)


def at_strides(spec: DistillationSpec, common: Sequence[Stride]) -> DistillationSpec:
    """The same where a term on every stride is one on each of ``common``, which share its weight."""
    terms: list[Term] = []
    for term in spec.terms:
        if not isinstance(term, DmlTerm) and term.stride == "every":
            terms += [term.model_copy(update={"stride": one, "weight": term.weight / len(common)}) for one in common]
        else:
            terms.append(term)
    return spec.model_copy(update={"terms": tuple(terms)})
