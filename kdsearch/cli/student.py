"""``kdsearch predict`` and ``kdsearch evaluate``: a picked student on images."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

from kdsearch.cli.terminal import say, terminal
from kdsearch.config.data import DataConfig
from kdsearch.config.task import Task
from kdsearch.data.dataset import Dataset
from kdsearch.data.masks import summed_up_again
from kdsearch.errors import DataError, writing
from kdsearch.export.loading import Student, load_student
from kdsearch.export.seen import read_seen
from kdsearch.files.home import home_folder
from kdsearch.measure.scores import dice_per_image, empty_per_image, iou_per_image, measure_overlap
from kdsearch.trials.scores import NativeScores
from kdsearch.workflow.evaluate import Evaluation, data_of, evaluate, read_evaluated
from kdsearch.workflow.predict import find_images, predict

SOME_SKIPPED = 1


def run_predict(options: argparse.Namespace) -> int:
    """Writes a mask and an overlay for each image; returns 1 if some images could not be read."""
    student = load_student(options.folder, runtime=options.runtime)
    found = find_images(options.images, options.out)
    console, images, skipped = terminal(stderr=True), found.images, list[str]()
    for line in found.passed_over:
        say(console, line, style="yellow")
    for wanted in track(images, description="predicting", console=console, disable=not console.is_terminal):
        try:
            predict(student, wanted, probabilities=options.probabilities)
        except DataError as error:
            skipped.append(f"{wanted.image}: {error}")
    for line in skipped:
        say(console, f"skipped {line}", style="red")
    done = len(images) - len(skipped)
    print(f"{done} of {len(images)} images done{f', written to {options.out}' if done else ''}")
    return SOME_SKIPPED if skipped else 0


def run_evaluate(options: argparse.Namespace) -> int:
    """Prints the scores on a data set, in total and by label; writes one row per image to ``--out``."""
    student = load_student(options.folder, runtime=options.runtime)
    data = data_of(
        options.dataset,
        student,
        on_invalid=options.on_invalid,
        threshold=options.threshold,
        settings=options.settings,
    )
    console = terminal()
    dataset = read_evaluated(
        student,
        data,
        home_folder(os.environ),
        known=read_seen(options.folder, student.description),
        unseen=options.unseen,
        warn=lambda text: say(console, text, style="yellow"),
    )
    evaluation = _watched(student, dataset, data)
    for table in score_tables(evaluation, student.description.task):
        console.print(table)
    for defect in summed_up_again(dataset.skipped):
        say(console, f"skipped {defect}", style="red")
    for remark in dataset.remarks:
        if not remark.quiet:
            say(console, str(remark), style="yellow")
    if options.out is not None:
        with writing(options.out):
            _write(options.out, evaluation)
        say(console, f"Written to {options.out}")
    return 0


def _watched(student: Student, dataset: Dataset, data: DataConfig) -> Evaluation:
    """Shows a progress bar in a terminal."""
    console, total = terminal(stderr=True), len(dataset.infos)
    return evaluate(
        student,
        dataset,
        data,
        watch=lambda images: track(
            images, description="predicting", total=total, console=console, disable=not console.is_terminal
        ),
    )


def score_tables(evaluation: Evaluation, task: Task) -> tuple[Table, Table]:
    """Scores at training and at original resolution, each with one row for all images and one per label."""
    small = _table(
        f"At training resolution, {task.describe_size()}",
        "lesions",
        "Dice %",
        "±",
        "IoU %",
        "specificity",
    )
    own = _table("At original resolution", "Dice %", "NSD %", "HD95 %", "missed (n)")
    labels = [info.label for info in evaluation.dataset.infos]
    groups: list[tuple[str, list[bool]]] = [("all", [True] * len(labels))]
    named = sorted({label for label in labels if label is not None})
    groups += [(label, [other == label for other in labels]) for label in named if len(named) > 1]
    classes = evaluation.dataset.classes
    for name, chosen in groups:
        part = torch.tensor(chosen)
        overlap = measure_overlap(evaluation.predicted[part], evaluation.target[part], names=classes)
        negatives = overlap.empty_images
        clean = "" if overlap.specificity is None else f"{100 * overlap.specificity:.0f} % of {negatives} negatives"
        figures = ["", "", ""]
        if overlap.images:
            figures = [f"{100 * value:.1f}" for value in (overlap.dice, overlap.dice_std, overlap.iou)]
            own.add_row(name, *_native(evaluation.native, np.array(chosen)))
        small.add_row(name, str(overlap.images), *figures, clean)
        if classes and name == "all":
            _add_classes(small, own, evaluation)
    return small, own


def _add_classes(small: Table, own: Table, evaluation: Evaluation) -> None:
    """Adds a row per class to both tables, and the mean IoU below the first."""
    overlap = measure_overlap(evaluation.predicted, evaluation.target, names=evaluation.dataset.classes)
    for one, native in zip(overlap.classes, evaluation.native.by_class, strict=True):
        figures = (f"{100 * one.dice:.1f}", f"{100 * one.dice_std:.1f}") if one.images else ("", "")
        small.add_row(f"class {one.name}", str(one.images), *figures, "", "")
        own.add_row(f"class {one.name}", f"{100 * np.nanmean(native):.1f}" if one.images else "", "", "", "")
    assert overlap.miou is not None, "it is measured for several classes"
    small.caption = f"mean IoU with background: {100 * overlap.miou:.1f} %"
    small.caption_justify = "left"


def _table(title: str, *columns: str) -> Table:
    """Fits 80 columns, because only labels are wrapped."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("images", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _native(scores: NativeScores, chosen: npt.NDArray[np.bool_]) -> list[str]:
    """Mean Dice, NSD and HD95 of the chosen images, and how many of their lesions have an empty prediction."""
    nsd, hd95 = (np.array(values)[chosen] for values in (scores.nsd, scores.hd95))
    columns = [np.array(column)[chosen] for column in scores.by_class or (scores.dice,)]
    dice = np.mean([np.nanmean(column) for column in columns if not np.isnan(column).all()])
    means = (float(dice), float(np.nanmean(nsd)), float(np.nanmean(hd95)))
    return [*(f"{100 * value:.1f}" for value in means), str(int((hd95 == 1).sum()))]


def _write(path: Path, evaluation: Evaluation) -> None:
    """One CSV row per image; Dice and IoU are empty for negative images."""
    predicted, target, native = evaluation.predicted, evaluation.target, evaluation.native
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = ("image", "source", "label", "dice", "native_dice", "nsd", "hd95", "iou", "nothing_predicted")
        writer.writerow((*head, *(f"native_dice_{name}" for name in evaluation.dataset.classes)))
        dice, iou = (measure(predicted, target).tolist() for measure in (dice_per_image, iou_per_image))
        columns = (dice, native.dice, native.nsd, native.hd95, iou, empty_per_image(predicted, target).tolist())
        classes = list(zip(*native.by_class, strict=True)) or [()] * len(evaluation.dataset.infos)
        for info, each, *values, empty in zip(evaluation.dataset.infos, classes, *columns, strict=True):
            row = (info.id, info.source, info.label or "", *_cells(*values), str(empty).lower(), *_cells(*each))
            writer.writerow(row)


def _cells(*values: float) -> Iterable[str]:
    return ("" if value != value else f"{value:.6f}" for value in values)  # noqa: PLR0124 - NaN differs from itself
