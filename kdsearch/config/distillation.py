"""The ``distillation`` section: what the student learns from the teacher, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kdsearch.config.ranges import Choice, FloatSearch, Section, WordSearch
from kdsearch.config.training import Fraction

DistilledPath = Literal["logits", "hidden", "attention", "regressor"]
Path = Literal["none", "logits", "hidden", "attention", "regressor"]
Loss = Literal["mse", "kld", "dml"]
View = Literal["same", "weak"]
Balance = Literal["added", "shared"]
LOSSES: dict[DistilledPath, tuple[Loss, ...]] = {
    "logits": ("mse", "kld", "dml"),
    "hidden": ("mse", "kld"),
    "attention": ("mse", "kld"),
    "regressor": ("mse", "kld"),
}
"""What each path can be compared by."""
LossWord = Literal["usual", "mse", "kld", "dml"]
USUAL: dict[DistilledPath, Loss] = {"logits": "dml", "hidden": "mse", "attention": "mse", "regressor": "mse"}
"""What each path is compared by where none is named."""


class DistillationSpace(Section):
    """The paper's grid, its baseline ``none``, and what was added to it."""

    path: WordSearch[Path] = "logits"
    """What is matched: nothing, the logits, the encoders' outputs channel by channel (``hidden``; needs as many in
    both), where in the image those are active (``attention``), or the teacher's through a learned ``regressor``."""
    loss: WordSearch[LossWord] = "usual"
    """``usual`` (``dml`` for ``logits``, ``mse`` for the others), mean squared error, Kullback-Leibler divergence, or
    ``dml`` (``logits`` only): cross-entropy and Dice against the teacher's probabilities. Of a choice, each path is
    given those that it can be compared by."""
    teacher_view: WordSearch[View] = "weak"
    """``weak``: the teacher sees the student's geometry without its noise; ``same``: the very image the student sees.
    Logits in the weak view are computed once a study, everything else every step."""
    weight: FloatSearch[Fraction] = 1.0
    """How much distillation counts in the loss, as ``balance`` says."""
    balance: Balance = "added"
    """``added``: supervised + weight · distillation, each path's on a common scale; ``shared``, the paper's: weight ·
    distillation + (1 - weight) · supervised, as they come."""
    temperature: FloatSearch[Annotated[float, Field(gt=0, le=100)]] = 2.0
    """Softens both distributions before ``kld`` compares logits; the loss is scaled by its square. Of maps none is: it
    would change next to nothing."""

    @model_validator(mode="after")
    def _nothing_idle(self) -> DistillationSpace:
        fields = type(self).model_fields
        given = {name for name in self.model_fields_set - {"path"} if getattr(self, name) != fields[name].default}
        if self.path == "none" and given:
            raise ValueError(
                f"path none distils nothing, so {', '.join(sorted(given))} would be without effect; remove it"
            )
        paths = [path for path in _choices(self.path) if path != "none"]
        softened = [path for path in paths if path == "logits" and "kld" in self.losses_of(path)]
        if "temperature" in given and not softened:
            raise ValueError("temperature has an effect on path logits with loss kld alone; remove it")
        for path in paths:
            if not self.losses_of(path):
                raise ValueError(f"path {path} can be compared by {', '.join(LOSSES[path])}; add one to loss")
        return self

    def losses_of(self, path: DistilledPath) -> tuple[Loss, ...]:
        """The losses of this section that the path can be compared by."""
        named = [USUAL[path] if loss == "usual" else loss for loss in _choices(self.loss)]
        return tuple(dict.fromkeys(loss for loss in named if loss in LOSSES[path]))


def _choices(value: Any) -> tuple[Any, ...]:
    return value.choice if isinstance(value, Choice) else (value,)


class DistillationSpec(Section):
    """One way to distil, as DistillationSpace describes it, with every value chosen."""

    path: DistilledPath
    loss: Loss
    teacher_view: View
    weight: float
    balance: Balance
    temperature: float | None
    """None but for logits compared by ``kld``."""
