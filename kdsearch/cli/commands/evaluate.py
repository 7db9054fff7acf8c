"""``kdsearch evaluate``: how good a picked student is on any data set that a reader knows."""

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

from kdsearch.cli.terminal import terminal
from kdsearch.config.data import DataConfig
from kdsearch.data.dataset import Dataset
from kdsearch.data.masks import summed_up_again
from kdsearch.errors import writing
from kdsearch.export.loading import Student, load_student
from kdsearch.export.seen import read_seen
from kdsearch.files.home import home_folder
from kdsearch.measure.scores import dice_per_image, empty_per_image, iou_per_image, measure_overlap
from kdsearch.trials.scores import NativeScores
from kdsearch.workflow.evaluate import Evaluation, data_of, evaluate, read_evaluated


def run(options: argparse.Namespace) -> int:
    """Prints scores of all images and by label, and writes a row for each image to ``--csv``."""
    student = load_student(options.folder, runtime=options.runtime)
    data = data_of(options.data, options.on_invalid, student)
    console = terminal(soft_wrap=True, highlight=False)
    dataset = read_evaluated(
        student,
        data,
        home_folder(os.environ),
        known=read_seen(options.folder, student.description),
        unseen=options.unseen,
        warn=lambda text: console.print(text, style="yellow"),
    )
    evaluation = _watched(student, dataset, data)
    for table in score_tables(evaluation, size=student.description.input.size):
        console.print(table)
    for defect in summed_up_again(dataset.skipped):
        console.print(f"skipped {defect}", style="red")
    for remark in dataset.remarks:
        if not remark.quiet:
            console.print(str(remark), style="yellow")
    if options.csv is not None:
        with writing(options.csv):
            _write(options.csv, evaluation)
        console.print(f"Written to {options.csv}")
    return 0


def _watched(student: Student, dataset: Dataset, data: DataConfig) -> Evaluation:
    """With a bar on a terminal."""
    console = terminal(stderr=True)
    return evaluate(
        student,
        dataset,
        data,
        watch=lambda images: track(
            images, description="predicting", total=len(dataset.infos), console=console, disable=not console.is_terminal
        ),
    )


def score_tables(evaluation: Evaluation, *, size: int) -> tuple[Table, Table]:
    """Scores at the student's size and at the files', each with a row for all images and for each label."""
    small = _table(
        f"At {size}×{size} pixels, as in training", "with a lesion", "Dice %", "±", "IoU %", "empty, left so"
    )
    own = _table("At the size of the files", "Dice %", "NSD %", "HD95 %", "missed")
    labels = [info.label for info in evaluation.dataset.infos]
    groups: list[tuple[str, list[bool]]] = [("all", [True] * len(labels))]
    named = sorted({label for label in labels if label is not None})
    groups += [(label, [other == label for other in labels]) for label in named if len(named) > 1]
    for name, chosen in groups:
        part = torch.tensor(chosen)
        overlap = measure_overlap(evaluation.predicted[part], evaluation.target[part])
        empty = "" if overlap.specificity is None else f"{100 * overlap.specificity:.0f} % of {overlap.empty_images}"
        figures = ["", "", ""]
        if overlap.images:
            figures = [f"{100 * value:.1f}" for value in (overlap.dice, overlap.dice_std, overlap.iou)]
            own.add_row(name, *_native(evaluation.native, np.array(chosen)))
        small.add_row(name, str(overlap.images), *figures, empty)
    return small, own


def _table(title: str, *columns: str) -> Table:
    """Labels are folded, figures and their headings never: all fit eighty columns."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("images", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _native(scores: NativeScores, chosen: npt.NDArray[np.bool_]) -> list[str]:
    """Mean Dice, NSD and HD95 of the chosen images, and how many lesions of theirs were missed."""
    dice, nsd, hd95 = (np.array(values)[chosen] for values in (scores.dice, scores.nsd, scores.hd95))
    return [*(f"{100 * np.nanmean(values):.1f}" for values in (dice, nsd, hd95)), str(int((hd95 == 1).sum()))]


def _write(path: Path, evaluation: Evaluation) -> None:
    """One row an image; Dice and IoU stay empty where the image holds no lesion."""
    predicted, target, native = evaluation.predicted, evaluation.target, evaluation.native
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "source", "label", "dice", "native_dice", "nsd", "hd95", "iou", "nothing_predicted"))
        dice, iou = (measure(predicted, target).tolist() for measure in (dice_per_image, iou_per_image))
        columns = (dice, native.dice, native.nsd, native.hd95, iou, empty_per_image(predicted).tolist())
        for info, *values, empty in zip(evaluation.dataset.infos, *columns, strict=True):
            writer.writerow((info.id, info.source, info.label or "", *_figures(*values), str(empty).lower()))


def _figures(*values: float) -> Iterable[str]:
    return ("" if value != value else f"{value:.6f}" for value in values)  # noqa: PLR0124 - NaN differs from itself
