"""Scores a picked student on a data set."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from kdsearch.config.data import BACKGROUND, DataConfig
from kdsearch.config.sources import CYST, LESION, PhantomSource
from kdsearch.config.yaml_file import YamlFile
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


def data_of(
    text: str,
    student: Student,
    *,
    on_invalid: str = "error",
    threshold: int | None = None,
    settings: Sequence[str] = (),
) -> DataConfig:
    """The data set ``READER=FOLDER`` at the student's size; raises KdsearchError for any other text.

    ``settings`` such as ``ignore=255`` say what the values of its masks mean. The classes must be the student's.
    """
    reader, _, folder = text.partition("=")
    if reader not in LICENCES:
        raise KdsearchError(
            f"{text}: expected READER=FOLDER, such as busi=data/busi; readers: {', '.join(LICENCES)}"
            f"{nearest(reader, LICENCES)}"
        )
    if reader != "phantom" and not folder:
        raise KdsearchError(f"{text}: add the folder of the images: {reader}=FOLDER")
    source: dict[str, object] = {"reader": reader}
    source |= {key: value for key, value in (("folder", folder), ("threshold", threshold)) if value}
    if reader == "phantom":
        source |= _simulated(student)
    try:
        taken = student.description.input
        given: dict[str, object] = {"size": taken.size, "fit": taken.fit, "channels": taken.channels}
        given |= {"on_invalid": on_invalid, "sources": [source]} | _meaning(student, reader, settings)
        data = DataConfig.model_validate_json(json.dumps(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise KdsearchError(f"{text}: {first['msg']}") from None
    wrong = data.foreground != student.classes if len(student.classes) > 1 else len(data.foreground) > 1
    if wrong:
        raise KdsearchError(
            f"{text}: the student predicts {', '.join(student.classes)}, but the masks have the classes "
            f"{', '.join(data.foreground) or 'of two values'}; say which values are the student's classes, such as "
            f"'classes={{background: 0, {student.classes[0]}: 1}}', and add other_values=background for all others"
        )
    return data


MEANINGS = ("classes", "palette", "other_values", "ignore")
"""Settings of the data section that say what the values of masks mean."""


def _meaning(student: Student, reader: str, settings: Sequence[str]) -> dict[str, object]:
    """What the values of the masks mean, with the classes in the student's order; default: numbers in that order."""
    for text in settings:
        key = text.partition("=")[0].split(".")[0]
        if key not in MEANINGS:
            raise KdsearchError(f"{text}: only {', '.join(MEANINGS)} can be set here{nearest(key, MEANINGS)}")
    found: dict[str, object] = {**YamlFile.of({}).with_settings(settings).content}
    order = {name: place for place, name in enumerate((BACKGROUND, *student.classes))}
    for key in ("classes", "palette"):
        if isinstance(named := found.get(key), dict):
            found[key] = dict(sorted(named.items(), key=lambda item: order.get(item[0], len(order))))
    if len(student.classes) > 1 and reader != "phantom" and not {"classes", "palette"} & set(found):
        found["classes"] = [BACKGROUND, *student.classes]
    return found


def _simulated(student: Student) -> dict[str, object]:
    """Simulated images like those that the student was trained on."""
    several = len(student.classes) > 1
    if several and student.classes != (LESION, CYST):
        raise KdsearchError(
            f"phantom: simulated images show {LESION} and {CYST}, but the student predicts "
            f"{', '.join(student.classes)}; name a folder of images"
        )
    return {"classes": 3 if several else 2, "colored": student.description.input.channels == 3}


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
