"""How a study is searched: the sampler, its limits, the pruner and where trials run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from kdsearch.config.quantity import Quantity
from kdsearch.config.ranges import Section, training_rule, without_effect

PrunerName = Literal["none", "reach", "halving", "median", "percentile", "successive_halving", "hyperband"]
OPTUNAS_OWN: tuple[PrunerName, ...] = ("median", "percentile", "successive_halving", "hyperband")
"""Optuna's pruners, which support one objective."""
RANKED_ON_ARRIVAL: tuple[PrunerName, ...] = ("successive_halving", "hyperband")
"""Pruners that compare with running trials, so their decisions depend on which trial is faster."""


def named(value: object) -> object:
    """Turns a pruner's name into a section with that pruner's defaults."""
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
"""The settings that each pruner uses."""


USUAL: dict[str, dict[str, int]] = {"reach": {"warmup_epochs": 8, "finished_trials": 10}}
"""Defaults of single pruners; with these, ``reach`` never stopped the best student in replays of studies."""


class PruningConfig(Section):
    """Which trials are stopped early."""

    pruner: PrunerName = "none"
    """``reach`` and ``halving`` work with any objectives and compare a student only with students of at most its size;
    Optuna's own need ``objectives: [dice]``."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 2
    """Epochs for which every trial is trained. Default for ``reach``: 8."""
    finished_trials: Annotated[int, Field(ge=1)] = 3
    """Trials that must have finished before any is stopped. Default for ``reach``: 10."""
    quantile: Annotated[float, Field(ge=0, le=1)] = 0.95
    """``reach``: quantile of the gains that finished trials made from the same epoch on. A higher value stops fewer
    trials."""
    margin: Annotated[float, Field(ge=0, le=1)] = 0.03
    """``reach``: by how much Dice a trial must fall short before it is stopped, to allow for noise."""

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
                f"{without_effect(idle)} with pruner {self.pruner}; remove {', '.join(idle)}, or use "
                f"{' or '.join(readers)}"
            )
        return self


Sampler = Literal["tpe", "gp", "nsga2", "nsga3", "random", "grid"]
Objective = Literal["dice", "params", "macs", "latency_ms", "specificity"]
Executor = Literal["processes", "inline", "ray"]
Start = Literal["scratch", "inherit"]
ADDRESSES = r"^(auto|local|[^:/\s]+:\d+)$"


class Limits(Section):
    """Hard limits. Larger students are never trained; less specific ones are left out of the front."""

    params: Quantity | None = None
    """Maximum number of parameters, such as ``820k``."""
    macs: Quantity | None = None
    """Maximum multiply-adds for one image, such as ``200M``."""
    min_specificity: Annotated[float, Field(gt=0, le=1)] | None = None
    """Minimum specificity (fraction of negative validation images with an empty prediction); checked after training."""


class RayConfig(Section):
    """The Ray cluster for ``executor: ray``, and what a trial uses of it."""

    address: Annotated[str, Field(pattern=ADDRESSES)] = "local"
    """``auto``: the cluster that this machine belongs to; ``HOST:PORT``: the cluster with this head; ``local``: a new
    one on this machine."""
    cpus_per_trial: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """Processor cores per trial; rounded down, this is also its number of torch threads."""
    gpus_per_trial: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """GPUs per trial; with a fraction, several students share one."""

    @field_validator("cpus_per_trial", "gpus_per_trial")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(f"must be between 0 and 1, or a whole number, got {value}")
        return value


class SearchConfig(Section):
    """How settings are proposed, compared and run."""

    sampler: Sampler = "tpe"
    """Algorithm that proposes the next trial; ``grid`` tries all combinations of a finite space."""
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    """Number of students to train in total; rejected settings do not count."""
    startup_trials: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Trials that cover all sizes before ``tpe`` uses results; population size of ``nsga2`` and ``nsga3``."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("dice", "params", "macs")
    """Objectives of the front. ``dice`` and ``specificity`` (fraction of negative validation images with an empty
    prediction) are maximized; ``params``, ``macs`` and ``latency_ms`` (one image, ONNX Runtime on one thread of the
    main process's machine) are minimized."""
    limits: Limits = Limits()
    """Hard limits on students."""
    start: Start = "scratch"
    """Initial weights of a student. ``scratch``: random; ``inherit``: the strongest channels of a finished wider U-Net
    of the same kind, if the study has one, with fewer epochs."""
    inherit_epoch_fraction: Annotated[float, Field(gt=0, le=1)] = 0.67
    """``inherit``: fraction of ``training.epochs`` for which such a student is trained."""
    pruning: Annotated[PruningConfig, BeforeValidator(named, json_schema_input_type=PrunerName | PruningConfig)] = (
        PruningConfig()
    )
    """Which trials are stopped early."""
    seed_per_trial: bool = False
    """Give each trial its own seed. By default all share the study's seed, so that students differ only in their
    settings."""
    executor: Executor = "processes"
    """``processes``: worker processes; ``inline``: in the main process, for debugging; ``ray``: several machines."""
    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of workers. Default: one per processor core; four on a CUDA device, which they share; one on another GPU;
    as many as fit on a Ray cluster."""
    ray: RayConfig = RayConfig()
    """The Ray cluster."""
    deterministic: bool = False
    """Draw settings in batches. On a CPU, the trials and the front are then the same with any number of workers, even
    if workers are killed."""
    ask_batch: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    """``deterministic``: settings drawn at a time; the next are drawn when all of them have ended."""
    retries: Annotated[int, Field(ge=0, le=1_000_000)] = 2
    """How often a trial or a teacher resumes after losing its worker before it counts as failed."""
    lost_after_epochs: Annotated[float, Field(gt=1)] = 10.0
    """A worker counts as lost if it has not reported for this many typical epoch times, and for at least a minute."""
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 30.0
    """Shortest time in seconds between two checkpoints of a trial; they are written at the end of an epoch."""
    checkpoint_url: str | None = None
    """Folder for checkpoints, or a URL that fsspec can write, such as ``s3://bucket/folder``. Default: the
    study's folder."""

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
            "executor: ray": "workers on other machines cannot be paused while a latency is measured"
            if self.executor == "ray"
            else "",
            "deterministic: true": "measured latencies vary" if self.deterministic else "",
            f"pruning: {self.pruning.pruner}": "a latency is measured only after training"
            if self.pruning.pruner != "none"
            else "",
        }
        for setting, reason in reasons.items():
            if reason:
                raise ValueError(f"objectives: latency_ms and {setting} cannot be combined: {reason}")
        return self

    @training_rule
    def _sampler_repeats(self) -> SearchConfig:
        if self.deterministic and self.sampler == "nsga3":
            raise ValueError(
                "sampler: nsga3 cannot be deterministic, because it draws other settings if it is interrupted within a "
                "generation; use tpe, nsga2, random or grid"
            )
        return self

    @training_rule
    def _start_fits(self) -> SearchConfig:
        if (
            self.start == "scratch"
            and self.inherit_epoch_fraction != type(self).model_fields["inherit_epoch_fraction"].default
        ):
            raise ValueError(
                "inherit_epoch_fraction has no effect with start: scratch; remove it, or use start: inherit"
            )
        if self.start == "inherit" and self.pruning.pruner in OPTUNAS_OWN:
            raise ValueError(
                f"start: inherit and pruning.pruner: {self.pruning.pruner} cannot be combined: students that start "
                "with inherited weights have other learning curves, and Optuna's pruners would compare them with "
                "the rest; use reach, halving or none"
            )
        return self

    @training_rule
    def _pruner_fits(self) -> SearchConfig:
        pruner = self.pruning.pruner
        if pruner in OPTUNAS_OWN and self.objectives != ("dice",):
            raise ValueError(
                f"pruning.pruner: Optuna's {pruner} needs objectives: [dice], got {list(self.objectives)}; "
                "reach and halving support any objectives"
            )
        if self.deterministic and pruner in RANKED_ON_ARRIVAL:
            raise ValueError(
                f"pruning.pruner: {pruner} depends on which trial is faster, so it cannot be deterministic; "
                "use reach, halving, median or percentile"
            )
        return self
