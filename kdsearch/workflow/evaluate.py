"""How good a picked student is on any data set that a reader knows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from kdsearch.config.data import DataConfig, PhantomSource
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import Dataset
from kdsearch.data.native import NativeImage, native_images
from kdsearch.data.source import LICENCES
from kdsearch.errors import KdsearchError, nearest
from kdsearch.export.checks import native_score
from kdsearch.export.loading import Student
from kdsearch.export.seen import Recognised, Seen, recognise
from kdsearch.measure.scores import predict_classes
from kdsearch.measure.surface import gather
from kdsearch.trials.scores import NativeScores

Images = Iterable[NativeImage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A student's answers on N images, and what they should have been."""

    dataset: Dataset
    predicted: Tensor
    """N×H×W class numbers at the student's size, as during training."""
    target: Tensor
    """N×H×W."""
    native: NativeScores
    """At the size of the files."""


def data_of(text: str, on_invalid: str, student: Student) -> DataConfig:
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
        return DataConfig.model_validate_json(json.dumps({"sources": [source], "size": size, "on_invalid": on_invalid}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise KdsearchError(f"--data {text}: {first['msg']}") from None


def read_evaluated(
    student: Student, data: DataConfig, home: Path, *, known: Seen, unseen: bool, warn: Callable[[str], None]
) -> Dataset:
    """The images; those that the student learnt from or was chosen by are left out where ``unseen``.

    ``warn`` is told how many of them the student knows, at least: a copy that was cut is found by its name only. Raises
    KdsearchError where none is left.
    """
    dataset = load_dataset(data, home, whites=student.description.input.whites)
    simulated = all(isinstance(source, PhantomSource) for source in data.sources)
    found = recognise(known, dataset.images, dataset.infos, simulated=simulated)
    if found.learnt.all() and unseen:
        count = f"all of {len(found.learnt)} images were trained on, or chosen by"
        raise KdsearchError(f"--unseen: {count}; nothing is left to score")
    for sentence in _what_is_known(found, looks=known.looks, unseen=unseen):
        warn(sentence)
    return _part(dataset, np.flatnonzero(~found.learnt)) if unseen else dataset


def _what_is_known(found: Recognised, *, looks: bool, unseen: bool) -> Iterator[str]:
    """How many of the images the student knows, as far as anybody can see."""
    whole = len(found.learnt)
    learnt, locked, alike = (int(part.sum()) for part in (found.learnt, found.locked, found.alike))
    if locked:
        yield (
            f"At least {locked} of {whole} images are the study's locked test images: this opens them. Report that "
            "score once, and choose nothing by it."
        )
    if learnt:
        rest = "; they are left out" if unseen else ": their scores are no test; leave them out with --unseen"
        yield f"At least {learnt} of {whole} images were trained on, or chosen by{rest}."
    elif unseen:
        yield f"None of {whole} images was recognised as one that was trained on, or chosen by."
    if alike:
        yield (
            f"{alike} further images have the file name or the patient of an image of the study, but look different: "
            "see whether they are cut or marked copies, or the same people."
        )
    if not looks:
        yield (
            "This student was picked by an older release, so that resized or recompressed copies of its images cannot "
            "be recognised; kdsearch pick writes the folder again."
        )


def evaluate(
    student: Student,
    dataset: Dataset,
    data: DataConfig,
    *,
    watch: Callable[[Images], Images] = lambda images: images,
) -> Evaluation:
    """Predicts every image as ``predict`` does; ``watch`` may count them as they are taken."""
    ids = [info.id for info in dataset.infos]
    predicted, scores = {}, {}
    for image in watch(native_images(data, set(ids), whites=student.description.input.whites)):
        small = student.small_logits(image.grey)
        predicted[image.id] = predict_classes(torch.from_numpy(small)[None])[0]
        scores[image.id] = native_score(small, image)
    return Evaluation(
        dataset=dataset,
        predicted=torch.stack([predicted[name] for name in ids]),
        target=torch.from_numpy(np.asarray(dataset.masks) > 0).long(),
        native=gather(scores[name] for name in ids),
    )


def _part(dataset: Dataset, kept: npt.NDArray[np.intp]) -> Dataset:
    return dataclasses.replace(
        dataset,
        images=dataset.images[kept],
        masks=dataset.masks[kept],
        infos=tuple(dataset.infos[position] for position in kept),
    )
