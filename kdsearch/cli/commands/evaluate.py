"""``kdsearch evaluate``: how good a picked student is on any data set that a reader knows."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from torch import Tensor

from kdsearch.cli.writing import writing
from kdsearch.config.data import DataConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import Dataset
from kdsearch.data.native import native_images
from kdsearch.data.source import LICENCES
from kdsearch.errors import KdsearchError, nearest
from kdsearch.export.loading import LoadedStudent, load_student
from kdsearch.export.native import native_dice
from kdsearch.export.seen import Seen, mark_known, read_seen
from kdsearch.files.home import home_folder
from kdsearch.measure.overlap import dice_per_image, empty_per_image, iou_per_image, predict_classes
from kdsearch.measure.scores import measure_overlap


def run(options: argparse.Namespace) -> int:
    """Prints Dice on all images and by label, and writes a row an image where ``--csv`` says."""
    student = load_student(options.folder, runtime=options.runtime)
    data = data_of(options.data, options.on_defect, student)
    dataset = load_dataset(data, home_folder(os.environ))
    console = Console(soft_wrap=True, highlight=False)
    dataset = _without_seen(dataset, options, known=read_seen(options.folder, student.description), console=console)
    predicted = _predict(student, dataset)
    native = _native(student, dataset, data)
    target = torch.from_numpy(np.asarray(dataset.masks) > 0).long()
    console.print(_summary(dataset, predicted, target, native=native))
    for defect in dataset.skipped:
        console.print(f"skipped {defect}", style="red", markup=False)
    if options.csv is not None:
        with writing(options.csv):
            _write(options.csv, dataset, predicted=predicted, target=target, native=native)
        console.print(f"Written to {options.csv}")
    return 0


def _without_seen(dataset: Dataset, options: argparse.Namespace, *, known: Seen, console: Console) -> Dataset:
    """Says how many of the images the student knows already, and leaves them out where ``--unseen`` asks for it."""
    locked = mark_known(dataset.images, known.locked)
    if locked.any():
        console.print(
            f"{locked.sum()} of {len(locked)} images are the study's locked test images: this opens them. Report that "
            "score once, and choose nothing by it.",
            style="yellow",
        )
    seen = mark_known(dataset.images, known.learnt)
    if not seen.any() and not options.unseen:
        return dataset
    count = f"{seen.sum()} of {len(seen)} images were trained on, or chosen by"
    if not options.unseen:
        console.print(f"{count}: their scores are no test; leave them out with --unseen", style="yellow")
        return dataset
    if seen.all():
        raise KdsearchError(f"--unseen: {count}; nothing is left to score")
    console.print(f"{count}{'; they are left out' if seen.any() else ''}", style="yellow" if seen.any() else "")
    kept = np.flatnonzero(~seen)
    return dataclasses.replace(
        dataset,
        images=dataset.images[kept],
        masks=dataset.masks[kept],
        infos=tuple(dataset.infos[position] for position in kept),
    )


def data_of(text: str, on_defect: str, student: LoadedStudent) -> DataConfig:
    """The data that ``READER=FOLDER`` stands for, at the student's size; raises KdsearchError where it is none."""
    reader, _, folder = text.partition("=")
    if reader not in LICENCES:
        raise KdsearchError(
            f"--data {text}: write READER=FOLDER, such as busi=data/busi; readers: {', '.join(LICENCES)}"
            f"{nearest(reader, LICENCES)}"
        )
    if reader != "phantom" and not folder:
        raise KdsearchError(f"--data {text}: say where the images lie: {reader}=FOLDER")
    source = {"reader": reader} | ({"folder": folder} if reader != "phantom" else {})
    try:
        size = student.description.input.size
        return DataConfig.model_validate_json(json.dumps({"sources": [source], "size": size, "on_defect": on_defect}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise KdsearchError(f"--data {text}: {first['msg']}") from None


def _predict(student: LoadedStudent, dataset: Dataset) -> Tensor:
    """N×H×W class numbers at the student's size, as during training."""
    console = Console(stderr=True)
    images = track(dataset.images, description="predicting", console=console, disable=not console.is_terminal)
    logits = np.stack([student.small_logits(np.asarray(image)) for image in images])
    return predict_classes(torch.from_numpy(logits))


def _native(student: LoadedStudent, dataset: Dataset, data: DataConfig) -> npt.NDArray[np.float64]:
    """N Dice coefficients at the size of the files, NaN where there is no lesion."""
    images = native_images(data, {info.id for info in dataset.infos})
    found = native_dice(student.small_logits, images, size=student.description.input.size)
    return np.array([found[info.id] for info in dataset.infos])


def _summary(dataset: Dataset, predicted: Tensor, target: Tensor, *, native: npt.NDArray[np.float64]) -> Table:
    table = Table(
        "images", "with a lesion", "Dice %", "± over images", "at files' size %", "IoU %", "empty ones left empty"
    )
    labels = [info.label for info in dataset.infos]
    groups: list[tuple[str, list[bool]]] = [("all", [True] * len(labels))]
    named = sorted({label for label in labels if label is not None})
    groups += [(label, [other == label for other in labels]) for label in named if len(named) > 1]
    for name, chosen in groups:
        part = torch.tensor(chosen)
        overlap = measure_overlap(predicted[part], target[part])
        empty = "" if overlap.empty_share is None else f"{100 * overlap.empty_share:.0f} % of {overlap.empty_images}"
        own = float(np.nanmean(native[np.array(chosen)])) if overlap.images else 0.0
        dice = (overlap.dice, overlap.dice_std, own, overlap.iou) if overlap.images else ()
        cells = [f"{100 * value:.1f}" for value in dice] or [""] * 4
        table.add_row(escape(name), str(overlap.images), *cells, empty)
    return table


def _write(path: Path, dataset: Dataset, *, predicted: Tensor, target: Tensor, native: npt.NDArray[np.float64]) -> None:
    """One row an image; Dice and IoU stay empty where the image holds no lesion."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "source", "label", "dice", "native_dice", "iou", "nothing_predicted"))
        figures = (dice_per_image(predicted, target), torch.from_numpy(native), iou_per_image(predicted, target))
        columns = [column.tolist() for column in (*figures, empty_per_image(predicted))]
        for info, *values, empty in zip(dataset.infos, *columns, strict=True):
            writer.writerow((info.id, info.source, info.label or "", *_figures(*values), str(empty).lower()))


def _figures(*values: float) -> Iterable[str]:
    return ("" if value != value else f"{value:.6f}" for value in values)  # noqa: PLR0124 - NaN differs from itself
