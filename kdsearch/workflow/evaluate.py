"""Scores a picked student on a data set."""

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

from kdsearch.config.data import BACKGROUND, DataConfig
from kdsearch.config.sources import PhantomSource
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import Dataset
from kdsearch.data.native import NativeImage, native_images
from kdsearch.data.source import LICENCES
from kdsearch.errors import KdsearchError, nearest
from kdsearch.export.checks import native_score
from kdsearch.export.loading import Student
from kdsearch.export.seen import Recognized, Seen, recognize
from kdsearch.measure.scores import predict_classes
from kdsearch.measure.surface import gather
from kdsearch.trials.scores import NativeScores

Images = Iterable[NativeImage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A student's predictions on N images, and the masks."""

    dataset: Dataset
    predicted: Tensor
    """N×H×W class numbers at the student's size, as during training."""
    target: Tensor
    """N×H×W."""
    native: NativeScores
    """At original resolution."""


def data_of(text: str, student: Student, *, on_invalid: str = "error", threshold: int | None = None) -> DataConfig:
    """The data set ``READER=FOLDER`` at the student's size; raises KdsearchError for any other text."""
    reader, _, folder = text.partition("=")
    if reader not in LICENCES:
        raise KdsearchError(
            f"{text}: expected READER=FOLDER, such as busi=data/busi; readers: {', '.join(LICENCES)}"
            f"{nearest(reader, LICENCES)}"
        )
    if reader != "phantom" and not folder:
        raise KdsearchError(f"{text}: add the folder of the images: {reader}=FOLDER")
    source = {"reader": reader} | ({"folder": folder, "threshold": threshold} if reader != "phantom" else {})
    try:
        taken = student.description.input
        settings: dict[str, object] = {
            "size": taken.size,
            "fit": taken.fit,
            "channels": taken.channels,
            "on_invalid": on_invalid,
        }
        settings |= {"sources": [source]} | _classes(student, reader)
        return DataConfig.model_validate_json(json.dumps(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise KdsearchError(f"{text}: {first['msg']}") from None


def _classes(student: Student, reader: str) -> dict[str, object]:
    """The setting that names the classes of masks, if the student has several."""
    if len(student.classes) == 1 or reader == "phantom":
        return {}
    return {"classes": [BACKGROUND, *student.classes]}


def read_evaluated(
    student: Student, data: DataConfig, home: Path, *, known: Seen, unseen: bool, warn: Callable[[str], None]
) -> Dataset:
    """The images; ``unseen`` leaves out those that trained or chose the student.

    ``warn`` gets sentences on how many such images were found. There may be more: a cropped copy is found only by its
    name. Raises KdsearchError if no image is left.
    """
    dataset = load_dataset(data, home, whites=student.description.input.whites)
    simulated = all(isinstance(source, PhantomSource) for source in data.sources)
    found = recognize(known, dataset.images, dataset.infos, simulated=simulated)
    if found.learnt.all() and unseen:
        count = f"all of {len(found.learnt)} images were used to train or choose this student"
        raise KdsearchError(f"--unseen: {count}; nothing is left to score")
    for sentence in _what_is_known(found, looks=known.looks, unseen=unseen):
        warn(sentence)
    return _part(dataset, np.flatnonzero(~found.learnt)) if unseen else dataset


def _what_is_known(found: Recognized, *, looks: bool, unseen: bool) -> Iterator[str]:
    """How many of the images trained or chose the student, as far as can be found."""
    whole = len(found.learnt)
    learnt, locked, alike = (int(part.sum()) for part in (found.learnt, found.locked, found.alike))
    if locked:
        yield (
            f"At least {locked} of {whole} images are locked test images of the study, which this uses up. Report the "
            "score once, and do not choose students by it."
        )
    if learnt:
        rest = "; they are left out" if unseen else ", so the scores are optimistic; leave them out with --unseen"
        yield f"At least {learnt} of {whole} images were used to train or choose this student{rest}."
    elif unseen:
        yield f"None of {whole} images was recognized as one that was used to train or choose this student."
    if alike:
        yield (
            f"{alike} more images share the file name or the patient with an image of the study, but look different: "
            "check whether they are cropped or annotated copies, or show the same people."
        )
    if not looks:
        yield (
            "This student was picked by an older release, so resized or recompressed copies of its images cannot be "
            "recognized; run kdsearch pick again to fix that."
        )


def evaluate(
    student: Student,
    dataset: Dataset,
    data: DataConfig,
    *,
    watch: Callable[[Images], Images] = lambda images: images,
) -> Evaluation:
    """Predicts every image as ``predict`` does; ``watch`` wraps the images, for example to count them."""
    ids = [info.id for info in dataset.infos]
    predicted, scores = {}, {}
    for image in watch(native_images(data, set(ids), whites=student.description.input.whites)):
        small = student.small_logits(image.pixels)
        predicted[image.id] = predict_classes(torch.from_numpy(small)[None])[0]
        scores[image.id] = native_score(small, image, student.description.input.frame)
    return Evaluation(
        dataset=dataset,
        predicted=torch.stack([predicted[name] for name in ids]),
        target=torch.from_numpy(np.array(dataset.masks)),
        native=gather(scores[name] for name in ids),
    )


def _part(dataset: Dataset, kept: npt.NDArray[np.intp]) -> Dataset:
    return dataclasses.replace(
        dataset,
        images=dataset.images[kept],
        masks=dataset.masks[kept],
        infos=tuple(dataset.infos[position] for position in kept),
    )
