"""The students that each search found, on test images, over core-seconds: docs/results/other-tools.md.

    python tests/benchmarks/peers/race.py FOLDER --ours NAME=STUDY… --theirs NAME=OUT… --seconds 400 --figure race.png

``FOLDER`` was written by ``prepare.py``. ``--ours`` names study files that were run in this home; STUDY.began next to
STUDY.yaml contains the start time (``date +%s.%N``). ``--theirs`` names output folders of the scripts. Several entries
with one name are several seeds, in the same order for each name. Time counts from the start of the process, without the
teacher's training. Fronts are selected by validation images and scored on test images.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from training import MOST_PARAMS, Lesions, Settings, dice_of, lines_of

from kdsearch.config.load import load_study
from kdsearch.export.folder import load_weights
from kdsearch.files.home import home_folder, weights_path
from kdsearch.models.students import build_student
from kdsearch.search.store import open_store
from kdsearch.trials.record import students_of

mpl.use("Agg")
from matplotlib import pyplot as plt

MARKS = (0.25, 0.5, 0.75, 1.0)
"""Parts of the time at which the table reads the curves."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """One trained student."""

    ended_s: float
    params: int
    dice: float
    """On validation images."""
    test: float


def main() -> None:
    """Prints the table and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--ours", nargs="*", default=[])
    parser.add_argument("--theirs", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    test = Lesions(options.data / "test", augmented=False)
    searches: dict[str, list[list[Made]]] = {}
    for ones, read in ((options.ours, _ours), (options.theirs, _theirs)):
        for one in ones:
            name, equals, place = one.partition("=")
            if not equals:
                parser.error(f"{one} must be NAME=PATH")
            searches.setdefault(name, []).append(list(read(Path(place), test)))
    times = np.linspace(0, options.seconds, 401)
    curves = {name: np.array([_curve(made, times) for made in runs]) for name, runs in searches.items()}
    _print(curves, searches, times)
    if options.figure:
        _draw(curves, times, options.figure)


def _ours(path: Path, test: Lesions) -> Iterator[Made]:
    study, home = load_study(path), home_folder(os.environ)
    began = float(path.with_suffix(".began").read_text(encoding="utf-8"))
    records = open_store(study, home, create=False).records()
    ended = {record.number: record.ended for record in records}
    for student in students_of(records):
        network = load_weights(student, weights_path(home, study.name, student.job), study.data.task)
        after = ended[student.number]
        assert after is not None, "it has finished"
        yield Made(
            ended_s=after.replace(tzinfo=after.tzinfo or datetime.UTC).timestamp() - began,
            params=student.scores.params,
            dice=student.scores.dice,
            test=_worth(network, test),
        )


def _theirs(out: Path, test: Lesions) -> Iterator[Made]:
    for line in lines_of(out):
        network = build_student(Settings(**line["settings"]).spec, begun=False)
        network.load_state_dict(torch.load(out / f"weights-{line['number']}.pt", weights_only=True))
        figures = {key: line[key] for key in ("ended_s", "params", "dice")}
        yield Made(**figures, test=_worth(network, test))


@torch.no_grad()
def _worth(network: Callable[[torch.Tensor], torch.Tensor], test: Lesions) -> float:
    network.eval()
    pairs = [test[place] for place in range(len(test))]
    images, masks = (torch.stack(part) for part in zip(*pairs, strict=True))
    return float(dice_of(network(images) > 0, masks > 0).nanmean())


def _curve(made: list[Made], times: np.ndarray) -> list[float]:
    return [_volume([one for one in made if one.ended_s <= time]) for time in times]


def _volume(made: list[Made]) -> float:
    """Hypervolume of test Dice of the students whose validation Dice is the best up to their size."""
    area = best = worth = 0.0
    for one in sorted(made, key=lambda one: (one.params, -one.dice)):
        if one.dice > best and one.params < MOST_PARAMS:
            area += (one.test - worth) * (math.log10(MOST_PARAMS) - math.log10(one.params))
            best, worth = one.dice, one.test
    return area


def _print(curves: dict[str, np.ndarray], searches: dict[str, list[list[Made]]], times: np.ndarray) -> None:
    last = times[-1]
    heads = " | ".join(f"{mark * last:.0f} s" for mark in MARKS)
    print(f"| search | students | {heads} | core-seconds, of the first's to the same |")
    print("|---" * (len(MARKS) + 3) + "|")
    first = next(iter(curves.values()))
    for name, found in curves.items():
        places = [round(mark * (len(times) - 1)) for mark in MARKS]
        values = " | ".join(f"{found[:, place].mean():.3f} ± {found[:, place].std(ddof=1):.3f}" for place in places)
        counts = ", ".join(str(sum(one.ended_s <= last for one in run)) for run in searches[name])
        ratios = [_ratio(ours, theirs, times) for ours, theirs in zip(first, found, strict=True)]
        print(f"| {name} | {counts} | {values} | {', '.join(f'{ratio:.1f}' for ratio in ratios)} |")


def _ratio(ours: np.ndarray, theirs: np.ndarray, times: np.ndarray) -> float:
    """How many times longer the other took to what it reached in the end; below 1 where ours never did."""
    reached = times[np.argmax(theirs >= theirs[-1])]
    if ours[-1] < theirs[-1]:
        return float(times[np.argmax(theirs >= ours[-1])] / times[np.argmax(ours >= ours[-1])])
    return float(reached / times[np.argmax(ours >= theirs[-1])])


def _draw(curves: dict[str, np.ndarray], times: np.ndarray, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, found in curves.items():
        (line,) = axes.plot(times, found.mean(axis=0), label=name)
        axes.fill_between(times, found.min(axis=0), found.max(axis=0), alpha=0.15, color=line.get_color())
    axes.set(xlabel="core-seconds", ylabel="hypervolume of test Dice, log10 of parameters")
    axes.legend()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
