"""The ``search.pruning`` section: which trials are stopped before their last epoch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdsearch.config.ranges import Section, training_rule

PrunerName = Literal["none", "reach", "halving", "median", "percentile", "successive_halving", "hyperband"]
OPTUNAS_OWN: tuple[PrunerName, ...] = ("median", "percentile", "successive_halving", "hyperband")
"""Optuna's pruners, which know one objective."""
RANKED_ON_ARRIVAL: tuple[PrunerName, ...] = ("successive_halving", "hyperband")
"""Those that compare with trials still running, so that their verdicts depend on who is faster."""


def named(value: object) -> object:
    """A pruner's name alone stands for that pruner with its defaults."""
    return {"pruner": value} if isinstance(value, str) else value


READS: dict[PrunerName, tuple[str, ...]] = {
    "none": (),
    "reach": ("warmup_epochs", "finished_trials", "quantile", "margin"),
    "halving": ("warmup_epochs", "finished_trials"),
    "median": ("warmup_epochs", "finished_trials"),
    "percentile": ("warmup_epochs", "finished_trials"),
    "successive_halving": ("warmup_epochs",),
    "hyperband": ("warmup_epochs",),
}
"""The settings that mean something to each."""


USUAL: dict[str, dict[str, int]] = {"reach": {"warmup_epochs": 8, "finished_trials": 10}}
"""Defaults of a pruner that differ from the rest's: with these ``reach`` spared the best student in all replays."""


class PruningConfig(Section):
    """Which trials are stopped before their last epoch."""

    pruner: PrunerName = "none"
    """``reach`` and ``halving`` serve any objectives and compare a student with none larger; Optuna's own need
    ``objectives: [dice]``."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 2
    """Epochs every trial may train before it can be stopped; 8 for ``reach`` unless given."""
    finished_trials: Annotated[int, Field(ge=1)] = 3
    """Trials that must have finished before any is stopped; 10 for ``reach`` unless given."""
    quantile: Annotated[float, Field(ge=0, le=1)] = 0.95
    """``reach``: a trial is trusted to gain as much as the one at this quantile of the finished trials did from the
    same epoch on; nearer to 1 stops fewer."""
    margin: Annotated[float, Field(ge=0, le=1)] = 0.03
    """``reach``: how far below its rival's Dice a trial's reach may lie before it is stopped, for the noise of both."""

    @model_validator(mode="before")
    @classmethod
    def _usual_for_the_pruner(cls, values: Any) -> Any:
        return USUAL.get(str(values.get("pruner")), {}) | values if isinstance(values, dict) else values

    @training_rule
    def _nothing_idle(self) -> Self:
        fields = type(self).model_fields
        given = {name for name in self.model_fields_set - {"pruner"} if getattr(self, name) != fields[name].default}
        idle = sorted(given - set(READS[self.pruner]))
        if idle:
            readers = sorted(name for name, settings in READS.items() if set(idle) <= set(settings))
            raise ValueError(
                f"{', '.join(idle)} would be without effect on pruner {self.pruner}; remove it, or take "
                f"{' or '.join(readers)}"
            )
        return self
