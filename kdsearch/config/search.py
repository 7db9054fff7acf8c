"""How a study is searched: the sampler, its limits, the pruner and where trials run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from kdsearch.config.quantity import Quantity
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


Sampler = Literal["tpe", "gp", "nsga2", "nsga3", "random", "grid"]
Objective = Literal["dice", "params", "macs", "latency_ms", "specificity"]
Executor = Literal["processes", "inline", "ray"]
Start = Literal["scratch", "inherit"]
ADDRESSES = r"^(auto|local|[^:/\s]+:\d+)$"


class Limits(Section):
    """Hard limits: larger recipes are rejected untrained, and less specific students are not on the front."""

    params: Quantity | None = None
    """Most parameters a student may have, such as ``820k``."""
    macs: Quantity | None = None
    """Most multiply-adds for one image, such as ``200M``."""
    min_specificity: Annotated[float, Field(gt=0, le=1)] | None = None
    """Lowest specificity: the fraction of negative validation images in which a student predicts no lesion. It is known
    after training."""


class RayConfig(Section):
    """The Ray cluster that ``executor: ray`` uses, and what a trial takes of it."""

    address: Annotated[str, Field(pattern=ADDRESSES)] = "local"
    """``auto``: the cluster this machine belongs to; ``HOST:PORT``: the one of that head; ``local``: one made here."""
    cpus_per_trial: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """Processor cores a trial takes; its torch threads, rounded down."""
    gpus_per_trial: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """GPUs a trial takes; a fraction lets small students share one."""

    @field_validator("cpus_per_trial", "gpus_per_trial")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(f"must be a fraction of one or a whole number, got {value}")
        return value


class SearchConfig(Section):
    """How recipes are chosen, judged and run."""

    sampler: Sampler = "tpe"
    """Who proposes recipes; ``grid`` tries every one and needs a finite space."""
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    """How many students are trained in all; rejected recipes do not count."""
    startup_trials: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Trials that are drawn at random before ``tpe`` begins to learn; the population of ``nsga2`` and ``nsga3``."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("dice", "params", "macs")
    """What the front is made of: ``dice`` and ``specificity`` (the fraction of negative validation images in which
    nothing is predicted) go up; ``params``, ``macs`` and ``latency_ms`` (one image, ONNX Runtime on one thread, on the
    driver's machine) go down."""
    limits: Limits = Limits()
    """Hard limits on a student's size."""
    start: Start = "scratch"
    """What a student's training begins with. ``scratch``: weights drawn from the seed; ``inherit``: the strongest
    channels of a wider finished U-Net of the same kind, if the study has one, and fewer epochs."""
    inherit_epoch_fraction: Annotated[float, Field(gt=0, le=1)] = 0.67
    """``inherit``: for what fraction of its epochs such a student is trained."""
    pruning: Annotated[PruningConfig, BeforeValidator(named, json_schema_input_type=PrunerName | PruningConfig)] = (
        PruningConfig()
    )
    """Which trials are stopped before their last epoch."""
    seed_per_trial: bool = False
    """Whether each trial trains with a seed of its own; else all share the study's, so that students differ by their
    recipes alone. The seed by itself moves a student's Dice by 1 to 2 points (standard deviation)."""
    executor: Executor = "processes"
    """``processes``: persistent worker processes; ``inline``: in the driver, for debugging; ``ray``: many machines."""
    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Workers; one for each processor core unless given, at most four on a CUDA device, which they share (with
    little memory, name fewer), one on another GPU, as many as fit on a Ray cluster."""
    ray: RayConfig = RayConfig()
    """The Ray cluster."""
    deterministic: bool = False
    """Recipes are drawn in batches, so that the CPU gives the same trials and the same front with any number of
    workers, however often they are killed."""
    ask_batch: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    """Recipes drawn at a time where ``deterministic``; the next are drawn when all of them have ended."""
    retries: Annotated[int, Field(ge=0, le=1_000_000)] = 2
    """How often a trial, or the teacher, whose worker was lost resumes with another one before it counts as failed."""
    lost_after_epochs: Annotated[float, Field(gt=1)] = 10.0
    """Usual epochs without a report after which a worker is taken for lost; never less than a minute."""
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 30.0
    """Least seconds between two checkpoints of a trial; they are written at the end of an epoch."""
    checkpoint_url: str | None = None
    """Where checkpoints are kept, a folder or a URL that fsspec can write such as ``s3://bucket/place``; with the study
    unless given."""

    @training_rule
    def _objectives_differ(self) -> SearchConfig:
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives must differ, got {list(self.objectives)}")
        return self

    @training_rule
    def _latency_can_be_measured(self) -> SearchConfig:
        if "latency_ms" not in self.objectives:
            return self
        reasons = {
            "executor: ray": "workers on other machines cannot be held still while a latency is measured"
            if self.executor == "ray"
            else "",
            "deterministic: true": "a latency is never twice the same" if self.deterministic else "",
            f"pruning: {self.pruning.pruner}": "a latency is known only when a student is trained"
            if self.pruning.pruner != "none"
            else "",
        }
        for setting, reason in reasons.items():
            if reason:
                raise ValueError(f"objectives: latency_ms and {setting} exclude each other: {reason}")
        return self

    @training_rule
    def _sampler_repeats(self) -> SearchConfig:
        if self.deterministic and self.sampler == "nsga3":
            raise ValueError(
                "sampler: nsga3 draws otherwise when it is broken off within a generation, so it cannot be "
                "deterministic; take tpe, nsga2, random or grid"
            )
        return self

    @training_rule
    def _start_fits(self) -> SearchConfig:
        if (
            self.start == "scratch"
            and self.inherit_epoch_fraction != type(self).model_fields["inherit_epoch_fraction"].default
        ):
            raise ValueError(
                "inherit_epoch_fraction would be without effect on start: scratch; remove it, or take start: inherit"
            )
        if self.start == "inherit" and self.pruning.pruner in OPTUNAS_OWN:
            raise ValueError(
                f"start: inherit and pruning.pruner: {self.pruning.pruner} exclude each other: students that begin "
                "with another's weights learn on other curves than the rest, and Optuna's pruners would compare them; "
                "take reach, halving or none"
            )
        return self

    @training_rule
    def _pruner_fits(self) -> SearchConfig:
        pruner = self.pruning.pruner
        if pruner in OPTUNAS_OWN and self.objectives != ("dice",):
            raise ValueError(
                f"pruning.pruner: Optuna's {pruner} needs objectives: [dice], got {list(self.objectives)}; "
                "reach and halving take any objectives"
            )
        if self.deterministic and pruner in RANKED_ON_ARRIVAL:
            raise ValueError(
                f"pruning.pruner: {pruner} depends on which trial is faster, so it cannot be deterministic; "
                "take reach, halving, median or percentile"
            )
        return self
