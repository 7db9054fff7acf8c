"""The ``distillation`` section: what the student learns from the teacher, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field

from kdsearch.config.ranges import (
    Choice,
    Fixed,
    FloatSearch,
    Section,
    Space,
    WordSearch,
    training_rule,
    without_effect,
)
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
"""The losses that each path supports."""
ANY_CHANNELS: frozenset[Loss] = frozenset({"affinity", "region"})
"""Losses that compare positions, so student and teacher may have different numbers of channels."""
NEEDS_MASKS: frozenset[Loss] = frozenset({"region"})
"""Losses that are computed only on images with masks."""
BY_PIXEL: frozenset[Loss] = frozenset({"mse", "kld", "dml"})
"""Losses on logits that sum over pixels, which ``boundary`` can weight."""
Stride = Literal[1, 2, 4, 8, 16, 32]
AttentionStride = Literal[1, 2, 4, 8, 16, 32, "every"]
LossWord = Literal["default", "mse", "kld", "dml", "cwd", "pkd", "affinity", "region"]
DEFAULT_LOSS: dict[DistilledPath, Loss] = {"logits": "dml", "hidden": "mse", "attention": "mse", "regressor": "mse"}
"""Each path's loss for ``loss: default``."""


Weight = Fraction
Temperature = Annotated[float, Field(gt=0, le=100)]
Boundary = Annotated[float, Field(ge=0, le=10)]
DEFAULT_TEMPERATURE = 2.0


class DistillationSpace(Section):
    """A single term, or ``none`` for students without a teacher."""

    path: WordSearch[Path] = "logits"
    """What the student imitates. ``none``: nothing; ``logits``: the output; ``hidden``: the encoder's output, channel
    by channel (needs equal channels); ``attention``: where the encoder's output is active; ``regressor``: the
    encoder's output after a small learned network."""
    loss: WordSearch[LossWord] = "default"
    """How student and teacher are compared. ``default``: ``dml`` for ``logits``, otherwise ``mse``. ``mse``: mean
    squared error. ``kld``: Kullback-Leibler divergence. ``dml`` (``logits`` only): the supervised loss against the
    teacher's probabilities. ``cwd``: each channel's distribution over the image. ``pkd``: correlation of each channel.
    ``affinity`` and ``region`` (``hidden`` only, any number of channels): similarity between positions, and to the mean
    of their class. With a choice, each path uses the losses that it supports."""
    teacher_view: WordSearch[View] = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image.
    Logits in the weak view are computed once per study. Everything else is computed at each step, except cached
    feature maps."""
    weight: FloatSearch[Weight] = 1.0
    """Weight of distillation in the loss; see ``loss_mix``."""
    loss_mix: Fixed[LossMix] = "add"
    """``add``: supervised + weight · distillation, on a common scale for all paths. ``interpolate``, as in the paper:
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
            raise ValueError(f"{without_effect(given)} with path: none; remove {', '.join(sorted(given))}")
        paths = [path for path in _choices(self.path) if path != "none"]
        pairs = [(path, loss) for path in paths for loss in self.losses_of(path)]
        if "temperature" in given and not any(is_softened(*pair) for pair in pairs):
            raise ValueError("temperature applies only to loss cwd, and to loss kld on path logits; remove it")
        if "boundary" in given and not any(is_by_pixel(*pair) for pair in pairs):
            raise ValueError("boundary applies only to path logits with loss mse, kld or dml; remove it")
        for path in paths:
            if not self.losses_of(path):
                raise ValueError(f"path {path} supports loss {', '.join(LOSSES[path])}; add one of them to loss")
        return self

    def losses_of(self, path: DistilledPath) -> tuple[Loss, ...]:
        """The losses of this section that the path supports."""
        named = [DEFAULT_LOSS[path] if loss == "default" else loss for loss in _choices(self.loss)]
        return tuple(dict.fromkeys(loss for loss in named if loss in LOSSES[path]))


def is_softened(path: DistilledPath, loss: Loss) -> bool:
    """Whether the loss uses a temperature."""
    return loss == "cwd" or (path, loss) == ("logits", "kld")


def is_by_pixel(path: DistilledPath, loss: Loss) -> bool:
    """Whether the loss can weight pixels."""
    return path == "logits" and loss in BY_PIXEL


def _choices(value: Any) -> tuple[Any, ...]:
    return value.choice if isinstance(value, Choice) else (value,)


class _Term(Section):
    path: Fixed[DistilledPath]
    """What is compared."""
    loss: Fixed[Loss]


class _MapsTerm(_Term):
    stride: Stride | None = None
    """Image pixels per cell of the compared feature maps. Default: the encoders' outputs."""


class _AttentionTerm(_Term):
    stride: AttentionStride | None = None
    """Image pixels per cell of the compared feature maps; ``every`` (for ``attention``) compares all strides that both
    networks have. Default: the encoders' outputs."""


class _Weighted(Section):
    weight: Weight = 1.0
    """Weight of the term in the loss."""
    teacher_view: View = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: exactly the student's image."""


class MseTerm(_Weighted, _AttentionTerm):
    """Mean squared error."""

    loss: Fixed[Literal["mse"]]
    """Mean squared error."""
    boundary: Boundary | None = None
    """How much more pixels near an outline count if logits are compared. Default: 0."""

    @training_rule
    def _of_what_is_compared(self) -> Self:
        _require_maps(self)
        _require_pixels(self)
        return self


class KldTerm(_Weighted, _AttentionTerm):
    """Kullback-Leibler divergence from the teacher's distribution."""

    loss: Fixed[Literal["kld"]]
    """Kullback-Leibler divergence."""
    temperature: Temperature | None = None
    """Softens both distributions, on logits only. Default: 2."""
    boundary: Boundary | None = None
    """How much more pixels near an outline count if logits are compared. Default: 0."""

    @training_rule
    def _of_what_is_compared(self) -> Self:
        if self.temperature is not None and self.path != "logits":
            raise ValueError("temperature applies only to path logits; remove it")
        _require_maps(self)
        _require_pixels(self)
        return self


class CwdTerm(_Weighted, _MapsTerm):
    """Channel-wise distillation: divergence of each channel's distribution over the image."""

    path: Fixed[Literal["logits", "hidden", "regressor"]]
    """What is compared. On a single channel of logits, it cannot teach the threshold."""
    loss: Fixed[Literal["cwd"]]
    """Channel-wise distillation (Shu et al. 2021)."""
    temperature: Temperature = DEFAULT_TEMPERATURE
    """Softens both distributions; the paper uses 4."""

    @training_rule
    def _stride_of_maps(self) -> Self:
        _require_maps(self)
        return self


class PkdTerm(_Weighted, _MapsTerm):
    """Pearson's correlation of each channel, over images and positions."""

    path: Fixed[Literal["hidden", "regressor"]]
    """What is compared."""
    loss: Fixed[Literal["pkd"]]
    """One minus the correlation (Cao et al. 2022)."""


class AffinityTerm(_Weighted, _MapsTerm):
    """Cosines between all pairs of positions; needs no equal channels."""

    path: Fixed[Literal["hidden"]]
    """What is compared."""
    loss: Fixed[Literal["affinity"]]
    """Squared difference of the cosines of pooled positions (Liu et al. 2019)."""


class RegionTerm(_Weighted, _MapsTerm):
    """Cosine of each position to the mean of its class; needs no equal channels."""

    path: Fixed[Literal["hidden"]]
    """What is compared."""
    loss: Fixed[Literal["region"]]
    """Squared difference of the cosines to class prototypes (Wang et al. 2020)."""


class DmlTerm(_Weighted, _Term):
    """The supervised loss with the teacher's probabilities instead of the mask."""

    path: Fixed[Literal["logits"]]
    """What is compared."""
    loss: Fixed[Literal["dml"]]
    """Cross-entropy and Dice against probabilities."""
    boundary: Boundary | None = None
    """How much more pixels near an outline count. Default: 0."""


def _require_maps(term: MseTerm | KldTerm | CwdTerm) -> None:
    """Raises ValueError for a stride of logits, and for ``every`` except with attention."""
    if term.path == "logits" and term.stride is not None:
        raise ValueError("stride applies only to hidden, attention and regressor; remove it, or use one of those paths")
    if term.path != "attention" and term.stride == "every":
        raise ValueError("stride: every applies only to attention; write 1, 2, 4, 8, 16 or 32")


def _require_pixels(term: MseTerm | KldTerm) -> None:
    """Raises ValueError for a boundary with feature maps, whose cells are not pixels."""
    if term.path != "logits" and term.boundary is not None:
        raise ValueError("boundary applies only to path logits; remove it")


Term: TypeAlias = MseTerm | KldTerm | DmlTerm | CwdTerm | PkdTerm | AffinityTerm | RegionTerm
"""One type per loss."""
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
    """One student's distillation, without ranges."""

    terms: Annotated[tuple[Annotated[Term, Field(discriminator="loss")], ...], Field(min_length=1)]
    loss_mix: LossMix

    @property
    def path(self) -> str:
        """What the terms compare, such as ``logits`` or ``logits+attention``."""
        return "+".join(term.path for term in self.terms)

    def summary(self) -> str:
        """Lists the terms, such as ``logits dml + attention at 8 mse``."""
        return " + ".join(
            f"{term.path}{'' if (stride := getattr(term, 'stride', None)) is None else f' at {stride}'} {term.loss}"
            for term in self.terms
        )


def teaches_without_masks(spec: DistillationSpec | None) -> bool:
    """Whether the distillation has a term that is computed on images without masks."""
    return spec is not None and any(term.loss not in NEEDS_MASKS for term in spec.terms)


def temperature_of(term: Term) -> float | None:
    """The temperature with which the term softens logits; None if it does not soften any."""
    return term.temperature if isinstance(term, KldTerm | CwdTerm) else None


def boundary_of(term: Term) -> float:
    """How much more the term weights pixels near an outline."""
    return term.boundary or 0.0 if isinstance(term, MseTerm | KldTerm | DmlTerm) else 0.0


def stride_of(term: Term) -> Stride | None:
    """The stride of the feature maps that the term compares; None for logits or the encoders' outputs."""
    if isinstance(term, DmlTerm):
        return None
    assert term.stride != "every", "at_strides replaces these terms first"
    return term.stride


def asks_for_every_stride(spec: DistillationSpec) -> bool:
    """Whether a term compares feature maps at every stride."""
    return any(not isinstance(term, DmlTerm) and term.stride == "every" for term in spec.terms)


def at_strides(spec: DistillationSpec, common: Sequence[Stride]) -> DistillationSpec:
    """Replaces each term at every stride with one term per stride in ``common``; they share its weight."""
    terms: list[Term] = []
    for term in spec.terms:
        if not isinstance(term, DmlTerm) and term.stride == "every":
            terms += [term.model_copy(update={"stride": one, "weight": term.weight / len(common)}) for one in common]
        else:
            terms.append(term)
    return spec.model_copy(update={"terms": tuple(terms)})
