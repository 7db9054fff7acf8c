"""The ``distillation`` section: what the student learns from the teacher, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kdsearch.config.ranges import Choice, FloatSearch, Section, WordSearch
from kdsearch.config.training import Share

DistilledPath = Literal["logits", "hidden", "regressor"]
Path = Literal["none", "logits", "hidden", "regressor"]
Loss = Literal["mse", "kld"]
View = Literal["same", "weak"]


class DistillationSpace(Section):
    """The paper's grid and its baseline ``none``."""

    path: WordSearch[Path] = "logits"
    """What is matched: nothing, the logits, the hidden maps directly, or those through a learned regressor."""
    loss: WordSearch[Loss] = "kld"
    """Mean squared error or Kullback-Leibler divergence."""
    teacher_view: WordSearch[View] = "weak"
    """``weak``: the teacher sees the student's geometry without its noise (computed once a study); ``same``: the very
    image the student sees (computed every step)."""
    weight: FloatSearch[Share] = 0.5
    """Share w of distillation in the loss: w · distillation + (1 - w) · supervised."""
    temperature: FloatSearch[Annotated[float, Field(gt=0, le=100)]] = 2.0
    """Softens both distributions before ``kld`` compares them; the loss is scaled by its square."""

    @model_validator(mode="after")
    def _nothing_idle(self) -> DistillationSpace:
        given = self.model_fields_set - {"path"}
        if self.path == "none" and given:
            raise ValueError(
                f"path none distils nothing, so {', '.join(sorted(given))} would be without effect; remove it"
            )
        losses = self.loss.choice if isinstance(self.loss, Choice) else (self.loss,)
        if "temperature" in given and "kld" not in losses:
            raise ValueError("temperature has no effect on loss mse; remove it, or let loss be kld")
        return self


class DistillationSpec(Section):
    """One way to distil, as DistillationSpace describes it, with every value chosen."""

    path: DistilledPath
    loss: Loss
    teacher_view: View
    weight: float
    temperature: float | None
    """None with ``mse``, which has no temperature."""
