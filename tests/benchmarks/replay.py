"""How much each pruner saves and loses, by replaying recorded curves in random orders: docs/results/pruners.md.

    python tests/benchmarks/replay.py

The curves come from studies without pruning (curves/*.yaml); the pruners are kdsearch's own.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna

from kdsearch.config.search import PruningConfig
from kdsearch.front.dominance import hypervolume, non_dominated
from kdsearch.search.pruners import LearningCurve, Pruner, build_pruner

CURVES = Path(__file__).parent / "curves"
BUDGETS = (10_000, 100_000, 1_000_000)
"""Of parameters, for which a user may want the best student."""
MOST_PARAMS = 1_000_000
"""The studies' limit; with Dice 0 it is the hypervolume's reference point."""
SETTINGS = PruningConfig()


@dataclass(frozen=True)
class Replay:
    """What one order came to."""

    saved: float
    kept: float
    """Hypervolume, as a share of the one without pruning."""
    stopped: tuple[float, float, float]
    """Shares of the full front's members that were stopped, by size third."""
    regret: tuple[float, ...]
    """By how much Dice the best finished student of each size budget lies below the best of all."""
    best_survives: bool
    """Whether the student of the best Dice was trained to the end."""


def load(name: str) -> list[LearningCurve]:
    """A file's trials, trained to their ends."""
    with (CURVES / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return [
        LearningCurve(
            number=int(row[0]),
            params=int(row[1]),
            macs=int(row[2]),
            dice=tuple(map(float, row[3:])),
            epochs=len(row) - 3,
            finished=True,
        )
        for row in rows
    ]


def replay(trials: list[LearningCurve], pruner: Pruner, *, seed: int, workers: int) -> Replay:
    """Trains the trials in a random order, ``workers`` at a time and one epoch each in turn."""
    waiting = [trials[index] for index in np.random.default_rng(seed).permutation(len(trials))]
    running: dict[int, int] = {}
    finished, stopped, epochs = set[int](), set[int](), 0
    known = {trial.number: trial for trial in trials}
    while waiting or running:
        while waiting and len(running) < workers:
            running[waiting.pop(0).number] = 0
        for number in list(running):
            running[number] += 1
            epochs += 1
            trial = known[number]
            if running[number] == trial.epochs:
                pruner.observe(trial)
                finished.add(number)
                del running[number]
                continue
            curve = replace(trial, dice=trial.dice[: running[number]], finished=False)
            reason = pruner.stops(curve)
            pruner.observe(curve)
            if reason:
                stopped.add(number)
                del running[number]
    total = sum(trial.epochs for trial in trials)
    kept = covered(known[number] for number in finished) / covered(trials)
    done = [known[number] for number in finished]
    return Replay(
        saved=1 - epochs / total,
        kept=kept,
        stopped=stopped_by_third(trials, stopped),
        regret=tuple(_best(trials, budget) - _best(done, budget) for budget in BUDGETS),
        best_survives=max(trials, key=lambda trial: trial.best).number in finished,
    )


def _best(trials: Iterable[LearningCurve], budget: int) -> float:
    """The best Dice within a budget of parameters; 0 where nothing is."""
    return max((trial.best for trial in trials if trial.params <= budget), default=0.0)


def covered(trials: Iterable[LearningCurve]) -> float:
    """The hypervolume of the trials."""
    return hypervolume(((trial.params, trial.best) for trial in trials), most_params=MOST_PARAMS)


def front(trials: list[LearningCurve]) -> set[int]:
    """Numbers of the trials no other beats in Dice, parameters and multiply-adds."""
    losses = np.array([[-trial.best, trial.params, trial.macs] for trial in trials])
    return {trial.number for trial, kept in zip(trials, non_dominated(losses), strict=True) if kept}


def stopped_by_third(trials: list[LearningCurve], stopped: set[int]) -> tuple[float, float, float]:
    """Of the full front's members in each third by size, the share that was stopped."""
    members = front(trials)
    thirds = [{trial.number for trial in third} for third in _thirds(trials)]
    small, middle, large = (len(members & third & stopped) / max(1, len(members & third)) for third in thirds)
    return small, middle, large


class MultiMetric:
    """The rule of OptunaHub's multi-metric pruner around Optuna's median: ranks among all trials at each epoch."""

    def __init__(self) -> None:
        self._curves: dict[int, LearningCurve] = {}

    def observe(self, curve: LearningCurve) -> None:
        self._curves[curve.number] = curve

    def stops(self, curve: LearningCurve) -> str:
        epoch = len(curve.dice)
        others = [other for other in self._curves.values() if other.number != curve.number]
        ended = sum(other.finished for other in others)
        if epoch <= SETTINGS.warmup_epochs or ended < SETTINGS.finished_trials:
            return ""
        ranks = {step: self._ranks(curve, others, step) for step in range(1, epoch + 1)}
        mine = min(rank[0] for rank in ranks.values())
        theirs = ranks[epoch][1:]
        return "worse than the median rank" if theirs and mine > np.median(theirs) else ""

    @staticmethod
    def _ranks(curve: LearningCurve, others: list[LearningCurve], step: int) -> list[int]:
        present = [curve, *(other for other in others if len(other.dice) >= step)]
        left, rank = np.arange(len(present)), 0
        losses = np.array([[-other.dice[step - 1], other.params, other.macs] for other in present])
        ranks = np.zeros(len(present), dtype=int)
        while len(left):
            best = non_dominated(losses[left])
            ranks[left[best]] = rank
            left, rank = left[~best], rank + 1
        return [int(value) for value in ranks]


class Random:
    """Stops trials at random epochs, to save about as many as asked."""

    def __init__(self, *, share: float, seed: int) -> None:
        self._random, self._share, self._until = np.random.default_rng(seed), share, dict[int, int]()

    def observe(self, curve: LearningCurve) -> None:  # noqa: ARG002 - the contract's name
        return

    def stops(self, curve: LearningCurve) -> str:
        if curve.number not in self._until:
            chosen = self._random.random() < self._share
            self._until[curve.number] = int(self._random.integers(3, curve.epochs // 3)) if chosen else 10**9
        return "chance" if len(curve.dice) >= self._until[curve.number] else ""


class Hindsight:
    """Knows the full front and stops everything else after the warm-up: what no rule can save more than."""

    def __init__(self, members: set[int]) -> None:
        self._members = members

    def observe(self, curve: LearningCurve) -> None:  # noqa: ARG002 - the contract's name
        return

    def stops(self, curve: LearningCurve) -> str:
        hopeless = curve.number not in self._members and len(curve.dice) > SETTINGS.warmup_epochs
        return "not on the front" if hopeless else ""


def rules(trials: list[LearningCurve], *, slow_ones: bool) -> dict[str, Callable[[int], Pruner]]:
    """Every rule by its name in the table, made again for each seed."""

    def named(name: str, **changes: object) -> Callable[[int], Pruner]:
        config = PruningConfig.model_validate({"pruner": name, **changes})
        return lambda seed: build_pruner(config)  # noqa: ARG005 - these draw nothing

    def reach(quantile: float, margin: float, finished: int, warmup: int) -> Callable[[int], Pruner]:
        return named("reach", quantile=quantile, margin=margin, finished_trials=finished, warmup_epochs=warmup)

    return {
        "none": named("none"),
        "random": lambda seed: Random(share=0.75, seed=seed),
        "Optuna's median on Dice": named("median"),
        "Optuna's successive halving on Dice": named("successive_halving"),
        **({"OptunaHub's multi-metric rule, median": lambda seed: MultiMetric()} if slow_ones else {}),  # noqa: ARG005
        "`halving`": named("halving"),
        "`reach` as it was: 0.8, 0, 3, 2": reach(0.8, 0.0, 3, 2),
        "`reach` 1, 0, 3, 2": reach(1.0, 0.0, 3, 2),
        "`reach` 1, 0.05, 3, 2": reach(1.0, 0.05, 3, 2),
        "`reach` 1, 0.05, 10, 2": reach(1.0, 0.05, 10, 2),
        "`reach` 1, 0.03, 10, 8": reach(1.0, 0.03, 10, 8),
        "`reach` 0.95, 0.03, 10, 8 (default)": named("reach"),
        "hindsight": lambda seed: Hindsight(front(trials)),  # noqa: ARG005
    }


def main() -> None:
    """Prints a table for each set of curves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--all", action="store_true", help="with a rule that takes an hour")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    for name in ("phantom-curves", "busi-curves"):
        trials = load(name)
        sizes = [len(front(trials) & {t.number for t in part}) for part in _thirds(trials)]
        print(f"\n{name}: {len(trials)} trials of {trials[0].epochs} epochs, front members by third {sizes}")
        print(
            "| rule | epochs saved | hypervolume kept | front stopped by third | best survives "
            "| regret ≤10k, ≤100k, ≤1M (largest) |"
        )
        print("|---|---|---|---|---|---|")
        for rule, build in rules(trials, slow_ones=options.all).items():
            runs = [replay(trials, build(seed), seed=seed, workers=options.workers) for seed in range(options.orders)]
            print(_row(rule, runs), flush=True)


def _thirds(trials: list[LearningCurve]) -> list[list[LearningCurve]]:
    by_size = sorted(trials, key=lambda trial: trial.params)
    return [by_size[i * len(by_size) // 3 : (i + 1) * len(by_size) // 3] for i in range(3)]


def _row(rule: str, runs: list[Replay]) -> str:
    saved, kept = (np.array([getattr(run, name) for run in runs]) for name in ("saved", "kept"))
    stopped = np.mean([run.stopped for run in runs], axis=0)
    thirds = ", ".join(f"{100 * share:.0f} %" for share in stopped)
    regret = 100 * np.array([run.regret for run in runs])
    lost = ", ".join(f"{mean:.1f}" for mean in regret.mean(axis=0))
    survives = 100 * np.mean([run.best_survives for run in runs])
    return (
        f"| {rule} | {100 * saved.mean():.1f} ± {100 * saved.std():.1f} % "
        f"| {100 * kept.mean():.1f} ± {100 * kept.std():.1f} % | {thirds} | {survives:.0f} % "
        f"| {lost} ({regret.max():.1f}) |"
    )


if __name__ == "__main__":
    main()
