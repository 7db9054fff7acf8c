"""The ``search`` section: how recipes are chosen, judged and run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kdsearch.config.quantity import Quantity
from kdsearch.config.ranges import Section

Sampler = Literal["tpe", "nsga2", "nsga3", "random", "grid"]
Objective = Literal["dice", "params", "macs"]
Executor = Literal["processes", "inline"]


class Limits(Section):
    """Hard limits: a recipe over one is rejected before any training."""

    params: Quantity | None = None
    """Most parameters a student may have, such as ``820k``."""
    macs: Quantity | None = None
    """Most multiply-adds for one image, such as ``200M``."""


class SearchConfig(Section):
    """How recipes are chosen, judged and run."""

    sampler: Sampler = "tpe"
    """Who proposes recipes; ``grid`` tries every one and needs a finite space."""
    trials: Annotated[int, Field(ge=1)] = 40
    """How many students are trained in all; rejected recipes do not count."""
    startup_trials: Annotated[int, Field(ge=1)] = 10
    """Trials that are drawn at random before ``tpe`` begins to learn; the population of ``nsga2`` and ``nsga3``."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("dice", "params", "macs")
    """What the front is made of: ``dice`` goes up, ``params`` and ``macs`` go down."""
    limits: Limits = Limits()
    """Hard limits on a student's size."""
    executor: Executor = "processes"
    """``processes``: persistent worker processes; ``inline``: in the driver, for debugging."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Worker processes; one for each processor core unless given, one in all on a GPU."""

    @model_validator(mode="after")
    def _objectives_differ(self) -> SearchConfig:
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives must differ, got {list(self.objectives)}")
        return self
