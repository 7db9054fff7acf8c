"""Takes a teacher that is there already: a checkpoint, an ONNX file, or predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kdsearch.config.networks import OnnxTeacher, PredictionsTeacher, TeacherConfig
from kdsearch.data.predictions import PredictionFolder, require_all
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Trained
from kdsearch.distill.teacher import TeacherRecipe, as_trained, load_network
from kdsearch.errors import TeacherError
from kdsearch.files.home import expanded
from kdsearch.models.given_teachers import OnnxNetwork, PredictedTeacher, params_of


def take_teacher(recipe: TeacherRecipe, materials: Materials, device: torch.device) -> Trained:
    """The teacher of the recipe, for the materials' images, which are of its own size; nothing is trained.

    Raises TeacherError where its file does not fit, DataError where predictions are lacking or cannot be read.
    """
    config, data = recipe.config, materials.training_data(device)
    if isinstance(config, PredictionsTeacher):
        predicted = _predicted(config, materials, size=recipe.size)
        return as_trained(predicted, data, size=recipe.size, params=config.params or 0)
    path = expanded(config.file or "", field="teacher.file")
    if isinstance(config, TeacherConfig):
        return as_trained(load_network(config, path, size=recipe.own_size).to(device), data, size=recipe.size)
    content = _content(config, path)
    network = OnnxNetwork(config, content, size=recipe.size)
    taken = as_trained(network, data, size=recipe.size, params=params_of(content))
    assert taken.logits is not None, "it is a teacher's"
    if config.output == "logits" and taken.logits.min() >= 0 and taken.logits.max() <= 1:
        raise TeacherError(
            f"teacher.file: {config.file}: all that it gives lies between 0 and 1, so that every pixel would be a "
            "lesion; write teacher.output: probabilities"
        )
    return taken


def _content(config: OnnxTeacher, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TeacherError(f"teacher.file: {config.file} cannot be read: {error.strerror or error}") from error


def _predicted(config: PredictionsTeacher, materials: Materials, *, size: int) -> PredictedTeacher:
    """Of every image that has a prediction, among them all that train, validate or are learnt from unlabelled."""
    folder = PredictionFolder(expanded(config.folder, field="teacher.folder"))
    dataset, splits, more = materials.dataset, materials.splits, materials.unlabelled
    extra = [] if more is None else [more.whole.infos[place].id for place in more.positions]
    ids = [info.id for info in dataset.infos]
    both = folder.read([*ids, *extra], size=size)
    found = both[: len(ids)]
    needed = sorted({*splits.train, *splits.validation})
    require_all(
        [found[place] for place in needed],
        [ids[place] for place in needed],
        folder=config.folder,
        of="training and validation",
    )
    images = [np.asarray(dataset.images[place]) for place, one in enumerate(found) if one is not None]
    maps = [one for one in found if one is not None]
    if more is not None:
        maps += require_all(both[len(ids) :], extra, folder=config.folder, of="unlabelled")
        images += [np.asarray(more.whole.images[place]) for place in more.positions]
    return PredictedTeacher.of(np.stack(images), maps)
