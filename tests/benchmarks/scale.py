"""How much time the main process needs per trial as a study grows, without training: docs/results/speed.md.

    python tests/benchmarks/scale.py

Optuna and MLflow use SQLite files in a temporary folder, filled with trials from the space of studies/pareto.yaml whose
Dice rises with their size.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.trial import TrialState, create_trial

from kdsearch.config.load import load_study
from kdsearch.config.search import Sampler
from kdsearch.config.study import StudyConfig
from kdsearch.config.task import square
from kdsearch.files.home import storage_url
from kdsearch.models.costs import cost_of
from kdsearch.search.run import refresh_front
from kdsearch.search.store import StudyStore, open_store
from kdsearch.search.trials import StudyState
from kdsearch.tracking.location import Tracking
from kdsearch.tracking.recorder import Recorder
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import EpochReport, dump_curve
from kdsearch.trials.scores import Cost, Overlap, Scores, dump_scores

EPOCHS = 30
T = TypeVar("T")
TEMPLATES = 40
"""Trials that are really asked for; the others repeat their settings with other scores."""


def main() -> None:
    """Measures at each size in turn, the study growing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--sampler", default="tpe")
    options = parser.parse_args()
    print("| finished | ask | dispatch | tell | record in MLflow | a trial | bring the front up to date | open again |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        study = _study(options.sampler)
        tracking = Tracking(uri=f"sqlite:///{home / 'mlflow.db'}")
        store = open_store(study, home, create=True)
        recorder = Recorder(study, tracking, study_id=store.id)
        templates = [_asked(store) for _ in range(TEMPLATES)]
        _begin(study, home, templates, options.in_flight - TEMPLATES)
        finished = 0
        for size in options.sizes:
            _finish_more(study, home, recorder, templates, size - finished)
            finished = size + options.repeats
            print(_row(size, *_measure(study, home, recorder, options.repeats, tracking)), flush=True)


def _study(sampler: Sampler) -> StudyConfig:
    study = load_study(Path(__file__).parents[2] / "studies" / "pareto.yaml")
    return study.model_copy(
        update={"search": study.search.model_copy(update={"sampler": sampler, "trials": 10**6}), "name": "scale"}
    )


def _asked(store: StudyStore) -> Recipe:
    proposal = store.ask()
    assert proposal is not None
    return proposal.recipe


def _open(study: StudyConfig, home: Path) -> optuna.Study:
    return optuna.load_study(study_name=study.name, storage=storage_url(home, study.name, None))


def _begin(study: StudyConfig, home: Path, templates: list[Recipe], count: int) -> None:
    known = _open(study, home)
    patterns = known.get_trials(deepcopy=False)[: len(templates)]
    known.add_trials(
        create_trial(
            state=TrialState.RUNNING,
            params=pattern.params,
            distributions=pattern.distributions,
            user_attrs={"recipe": pattern.user_attrs["recipe"]},
        )
        for pattern in (patterns[index % len(patterns)] for index in range(count))
    )


def _finish_more(study: StudyConfig, home: Path, recorder: Recorder, templates: list[Recipe], count: int) -> None:
    known = _open(study, home)
    patterns = known.get_trials(deepcopy=False)[: len(templates)]
    before = len(known.get_trials(deepcopy=False))
    chance = random.Random(before)
    for index in range(count):
        pattern = patterns[index % len(patterns)]
        made = _scores(templates[index % len(templates)], study, chance)
        known.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                values=[made.dice, made.params, made.macs],
                params=pattern.params,
                distributions=pattern.distributions,
                user_attrs={
                    "recipe": pattern.user_attrs["recipe"],
                    "scores": dump_scores(made),
                    "curve": dump_curve(_curve(made.dice)),
                    "outcome": "finished",
                },
            )
        )
    store = open_store(study, home, create=False)
    for record in store.records()[before:]:
        recorder.trial(dataclasses.replace(record, curve=record.curve[-1:]))


def _measure(
    study: StudyConfig, home: Path, recorder: Recorder, repeats: int, tracking: Tracking
) -> tuple[dict[str, list[float]], float, float]:
    took: dict[str, list[float]] = defaultdict(list)
    chance = random.Random(1)
    store = open_store(study, home, create=False)
    state = StudyState(store.records(), target=10**6, bound=store.bound())
    for _ in range(repeats):
        proposal = _timed(took["ask"], store.ask)
        assert proposal is not None
        recipe = proposal.recipe
        _timed(took["dispatch"], lambda recipe=recipe: cost_of(recipe.student, square(study.data.size)))
        made = _scores(recipe, study, chance)
        number, curve = proposal.number, _curve(made.dice)
        record = _timed(took["tell"], lambda n=number, m=made, c=curve: store.finish(n, m, c))
        state.end(record)
        _timed(took["record"], lambda record=record: recorder.trial(record))
    front: list[float] = []
    _timed(front, lambda: refresh_front(recorder, study, students=state.students, bound=state.bound))
    again: list[float] = []
    _timed(again, lambda: _open_again(study, home, tracking))
    return took, front[0], again[0]


def _open_again(study: StudyConfig, home: Path, tracking: Tracking) -> None:
    store = open_store(study, home, create=False)
    StudyState(store.records(), target=10**6, bound=store.bound())
    Recorder(study, tracking, study_id=store.id)


def _timed(into: list[float], action: Callable[[], T]) -> T:
    began = time.perf_counter()
    result = action()
    into.append(time.perf_counter() - began)
    return result


def _scores(recipe: Recipe, study: StudyConfig, chance: random.Random) -> Scores:
    cost: Cost = cost_of(recipe.student, square(study.data.size))
    dice = min(0.9, 0.1 * math.log10(cost.params) + chance.gauss(0.2, 0.05))
    overlap = Overlap(dice=dice, dice_std=0.2, iou=dice, images=90, specificity=None, empty_images=0)
    return Scores(
        overlap=overlap,
        by_source=(),
        params=cost.params,
        macs=cost.macs,
        flops=cost.flops,
        tool_counts=(),
        train_seconds=30.0,
        epochs=EPOCHS,
        best_epoch=EPOCHS,
    )


def _curve(dice: float) -> tuple[EpochReport, ...]:
    return tuple(
        EpochReport(
            epoch=epoch,
            epochs=EPOCHS,
            train_loss=1 / epoch,
            validation_loss=1 / epoch,
            dice=dice * epoch / EPOCHS,
            learning_rate=1e-3,
            seconds=float(epoch),
        )
        for epoch in range(1, EPOCHS + 1)
    )


def _row(size: int, took: dict[str, list[float]], front: float, again: float) -> str:
    cells = [statistics.median(took[name]) for name in ("ask", "dispatch", "tell", "record")]
    whole = [sum(parts) for parts in zip(*took.values(), strict=True)]
    spread = f"{1000 * statistics.median(whole):.0f} ms ({1000 * min(whole):.0f}–{1000 * max(whole):.0f})"
    return (
        f"| {size:,} | " + " | ".join(f"{1000 * cell:.0f} ms" for cell in cells) + f" | {spread} "
        f"| {front:.1f} s | {again:.1f} s |"
    )


if __name__ == "__main__":
    main()
