"""Proposes recipes: Optuna's samplers on an in-memory copy of the study, and inherited weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdsearch.config.networks import StudentSpec, UNetSpec
from kdsearch.config.ranges import AnyRange, Choice, FloatRange, IntRange, count_of, value_at
from kdsearch.config.renamed import name_up_to_date
from kdsearch.config.search import Objective, SearchConfig
from kdsearch.config.space import extreme_students
from kdsearch.config.study import StudyConfig
from kdsearch.config.task import square
from kdsearch.models.costs import cost_of
from kdsearch.search.recipes import choose
from kdsearch.trials.recipe import Inherited, Recipe
from kdsearch.trials.record import SCHEMA as TRIAL
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Cost

GOOD_SHARE = 0.25
"""Fraction of finished trials that TPE treats as good; Optuna's 10 % is only one or two trials in such a study."""
MOST_GOOD = 25


def build_sampler(config: SearchConfig, *, seed: int, unfinished: int = 0) -> BaseSampler:
    """Builds the sampler; for ``grid``, the store supplies all values, so the sampler draws nothing.

    ``unfinished`` is the number of rejected and stopped trials, which the sampler must not count as finished ones.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the user may choose an experimental sampler
        warnings.filterwarnings("ignore", message=".*gamma.*deprecated", category=FutureWarning)  # until Optuna 6
        return _build(config, seed, unfinished)


def _build(config: SearchConfig, seed: int, unfinished: int) -> BaseSampler:
    match config.sampler:
        case "tpe":
            return TPESampler(
                seed=seed,
                n_startup_trials=config.startup_trials + unfinished,
                multivariate=True,
                group=True,
                gamma=lambda trials: min(math.ceil(GOOD_SHARE * max(0, trials - unfinished)), MOST_GOOD),
            )
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=config.startup_trials)
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=max(2, config.startup_trials))
        case "nsga3":
            return NSGAIIISampler(seed=seed, population_size=max(2, config.startup_trials))
        case "random" | "grid":
            return RandomSampler(seed=seed)


MOST_TIMES = 4.0
"""A donor has at most this many times the parameters; larger ones were not measured (docs/results/inheritance.md)."""
ANY_SIZE = 64
"""In pixels; the number of parameters does not depend on it."""


def with_donor(recipe: Recipe, students: Sequence[Student], search: SearchConfig) -> Recipe:
    """Lets the recipe inherit the weights of the best suitable student, with fewer epochs; unchanged if there is none.

    Undistilled students inherit only from undistilled ones, so that the effect of distillation can still be measured.
    """
    donor = None if search.start == "scratch" else _best_donor(recipe, students)
    if donor is None:
        return recipe
    epochs = recipe.training.epochs
    short = recipe.training.model_copy(update={"epochs": max(1, round(search.inherit_epoch_fraction * epochs))})
    return recipe.model_copy(update={"training": short, "start": Inherited(donor=donor.number, scratch_epochs=epochs)})


def _best_donor(recipe: Recipe, students: Sequence[Student]) -> Student | None:
    """The student with the best Dice that is wide enough and not too large."""
    most = MOST_TIMES * cost_of(recipe.student, square(ANY_SIZE)).params
    fitting = [
        student
        for student in students
        if is_wider(student.recipe.student, recipe.student)
        and (student.recipe.distillation is None) == (recipe.distillation is None)
        and student.scores.params <= most
    ]
    return max(fitting, key=lambda student: (student.scores.dice, -student.number), default=None)


def is_wider(wide: StudentSpec, narrow: StudentSpec) -> bool:
    """Whether the narrow student can inherit from the wide one, which must match and be nowhere narrower."""
    if not isinstance(wide, UNetSpec) or not isinstance(narrow, UNetSpec) or wide.channels == narrow.channels:
        return False
    alike = all(getattr(wide, key) == getattr(narrow, key) for key in ("depth", "convs_per_stage", "conv"))
    return alike and all(a >= b for a, b in zip(wide.channels, narrow.channels, strict=True))


LEARNING = ("tpe", "gp")
"""Samplers whose first trials are spread over the sizes; others have a first generation of their own."""
CANDIDATES = 32
"""Number of random recipes from which each first trial takes the one nearest to its size."""
UNKNOWN_VIOLATION = 1.0
"""For recipes that an older release rejected."""


class SamplerStudy:
    """An in-memory copy of an Optuna study."""

    def __init__(self, config: StudyConfig, study: optuna.Study) -> None:
        self._config = config
        self._study = optuna.create_study(directions=study.directions)
        self._study.add_trials([self._seen(trial) for trial in study.get_trials(deepcopy=False)])
        self._sizes: tuple[float, float] | None = None

    @property
    def number(self) -> int:
        """The next trial's number."""
        return sum(trial.state != TrialState.WAITING for trial in self.trials)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials with the values that samplers use."""
        return self._study.get_trials(deepcopy=False)

    def draw(self, *, sampler_seed: int, seed: int, choices: dict[str, object] | None) -> tuple[Recipe, FrozenTrial]:
        """Draws the next recipe, to be trained with ``seed``, and its trial; a grid supplies the values."""
        search = self._config.search
        drawn = [trial for trial in self.trials if "rejected" not in trial.user_attrs]
        finished = sum(trial.state == TrialState.COMPLETE for trial in drawn)
        if choices is None and search.sampler in LEARNING and finished < search.startup_trials:
            choices = self._first(len(drawn), np.random.default_rng(sampler_seed))
        if choices is not None:
            self._study.enqueue_trial(choices)
        others = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self.trials) - finished
        self._study.sampler = build_sampler(search, seed=sampler_seed, unfinished=others)
        trial = self._study.ask()
        recipe = choose(self._config, lambda name, value: suggest(trial, name, value), seed=seed)
        return recipe, self.trials[trial.number]

    def end(self, trial: FrozenTrial) -> None:
        """Copies the end of a trial from the original study."""
        mine = self.trials[trial.number]
        if mine.state.is_finished():
            return
        seen = self._seen(trial)
        for key, value in seen.system_attrs.items():
            self._study._storage.set_trial_system_attr(mine._trial_id, key, value)  # noqa: SLF001 - no public API by number
        for key, value in seen.user_attrs.items():
            self._study._storage.set_trial_user_attr(mine._trial_id, key, value)  # noqa: SLF001 - likewise
        self._study.tell(trial.number, seen.values, state=seen.state)

    def _seen(self, trial: FrozenTrial) -> FrozenTrial:
        """The trial with values on the scales that samplers use."""
        objectives, limits = self._config.search.objectives, self._config.search.limits
        state, values, constraints, notes = trial.state, None, {}, {}
        if trial.user_attrs.get("outcome") == "rejected":
            notes = {"rejected": True}
            state = TrialState.COMPLETE if self._config.search.sampler == "tpe" else TrialState.FAIL
            values = [0.0] * len(objectives) if state == TrialState.COMPLETE else None
            constraints = {"constraints:limits": float(trial.user_attrs.get("violation", UNKNOWN_VIOLATION))}
        elif trial.state == TrialState.COMPLETE:
            values = [_scaled(name, value) for name, value in zip(objectives, trial.values, strict=True)]
            if limits.min_specificity is not None:
                share = float(TRIAL.upgraded(trial.user_attrs).get("specificity", 0.0))
                constraints = {"constraints:specificity": limits.min_specificity - share}
        return create_trial(
            state=state,
            values=values,
            params={name_up_to_date(name): value for name, value in trial.params.items()},
            distributions={name_up_to_date(name): value for name, value in trial.distributions.items()},
            user_attrs=notes,
            system_attrs={**trial.system_attrs, **constraints},
        )

    def _first(self, index: int, rng: np.random.Generator) -> dict[str, object] | None:
        """Values for one of the first trials; None if no candidate is within the limits.

        Sizes follow van der Corput's sequence between the smallest and the largest on a logarithmic scale, so that the
        first few trials already cover the range. The first trials, one per factor of 10 in size, use default values for
        all settings except the student's; later ones use random values.
        """
        low, high = self._span()
        wanted = low + van_der_corput(index + 1) * (high - low)
        return self._nearest(wanted, rng, usual=index < max(1, round(high - low)))

    def _nearest(self, wanted: float, rng: np.random.Generator, *, usual: bool) -> dict[str, object] | None:
        """Values of the random candidate whose log10 of parameters is nearest to ``wanted``."""
        best: tuple[float, dict[str, object]] | None = None
        for _ in range(CANDIDATES):
            choices: dict[str, object] = {}

            def pick(name: str, value: AnyRange, choices: dict[str, object] = choices) -> object:
                settled = usual and not name.startswith("student.")
                choices[name] = usual_value(value) if settled else random_value(value, rng)
                return choices[name]

            cost = cost_of(choose(self._config, pick, seed=0).student, self._config.data.task)
            apart = abs(math.log10(cost.params) - wanted)
            if self._allows(cost) and (best is None or apart < best[0]):
                best = apart, choices
        return best[1] if best is not None else None

    def _span(self) -> tuple[float, float]:
        """log10 of the smallest and the largest number of parameters within the limits."""
        if self._sizes is None:
            task = self._config.data.task
            params = [cost_of(spec, task).params for spec in extreme_students(self._config)]
            most = self._config.search.limits.params
            largest = max(params) if most is None else min(max(params), most)
            self._sizes = math.log10(min(params)), math.log10(max(largest, min(params)))
        return self._sizes

    def _allows(self, cost: Cost) -> bool:
        limits = self._config.search.limits
        pairs = ((cost.params, limits.params), (cost.macs, limits.macs))
        return all(limit is None or value <= limit for value, limit in pairs)


def suggest(trial: optuna.Trial, name: str, value: AnyRange) -> object:
    """Lets the sampler choose a value of a range."""
    match value:
        case Choice(choice=choice):
            return trial.suggest_categorical(name, choice)
        case IntRange(bounds=(low, high), log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case FloatRange(bounds=(low, high), log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)


def random_value(value: AnyRange, rng: np.random.Generator) -> object:
    """Draws a value of a range, uniformly on its own scale."""
    match value:
        case Choice(choice=choice):
            return choice[int(rng.integers(len(choice)))]
        case IntRange(bounds=(low, high), log=True):
            drawn = round(math.exp(rng.uniform(math.log(low - 0.5), math.log(high + 0.5))))
            return int(min(max(drawn, low), high))
        case FloatRange(bounds=(low, high), log=True):
            return float(min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high))
        case FloatRange(bounds=(low, high), step=None):
            return float(rng.uniform(low, high))
        case IntRange() | FloatRange():
            count = count_of(value)
            assert count is not None, "ranges without a step are handled above"
            return value_at(value, int(rng.integers(count)))


def usual_value(value: AnyRange) -> object:
    """The first option of a choice, or the midpoint of a range on its own scale."""
    match value:
        case Choice(choice=choice):
            return choice[0]
        case IntRange(bounds=(low, high), log=log, step=step) | FloatRange(bounds=(low, high), log=log, step=step):
            middle = math.sqrt(low * high) if log else (low + high) / 2
            return float(middle) if step is None else value_at(value, round((middle - low) / step))


def van_der_corput(index: int) -> float:
    """The van der Corput sequence in base 2: 1/2, 1/4, 3/4, 1/8, … from index 1."""
    value, part = 0.0, 0.5
    while index:
        value += part * (index % 2)
        index //= 2
        part /= 2
    return value


def _scaled(objective: Objective, value: float) -> float:
    return math.log10(max(value, 1e-9)) if objective in ("params", "macs", "latency_ms") else value
