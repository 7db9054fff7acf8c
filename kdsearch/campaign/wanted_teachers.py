"""Teachers that a campaign needs: their folders, and how those without training are created."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from kdsearch.config.networks import PredictionsTeacher, TeacherConfig
from kdsearch.config.study import StudyConfig
from kdsearch.config.task import Task
from kdsearch.data.cache import load_dataset, load_unlabelled
from kdsearch.data.frame import Frame
from kdsearch.data.predictions import PredictionFolder, require_all
from kdsearch.data.splits import splits_of, training_folds
from kdsearch.distill.batches import choose_device, images_at
from kdsearch.distill.loop import EVALUATION_BATCH, Fitted, predict_logits
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Kept, Trained
from kdsearch.distill.teacher import TeacherRecipe, as_trained, load_network
from kdsearch.distill.teacher_folder import (
    KNOWN,
    OutOfFold,
    TrainedTeacher,
    damage_of,
    open_teacher,
    store_teacher,
    teacher_folder,
)
from kdsearch.errors import TeacherError
from kdsearch.files.atomic import atomic_write
from kdsearch.files.digests import digest, seed_of
from kdsearch.files.home import expanded
from kdsearch.measure.scores import dice_per_image, predict_classes
from kdsearch.models.contract import normalize
from kdsearch.models.given_teachers import OnnxNetwork, PredictedTeacher, params_of
from kdsearch.models.teacher import Ensemble, Teacher, resized


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTeacher:
    """A teacher that a campaign needs for some images."""

    recipe: TeacherRecipe
    images: Materials
    kept: Kept = "best"
    """Which epoch's weights the teacher gets."""

    def folder(self, home: Path) -> Path:
        made_from, unlabelled = self.images.splits.fingerprint, self.images.unlabelled
        if isinstance(self.recipe.config, PredictionsTeacher) and unlabelled is not None:
            made_from = digest(made_from, unlabelled.fingerprint)  # its folder has predictions of these too
        return teacher_folder(self.recipe, made_from, home, kept=self.kept)

    def cached(self, home: Path) -> TrainedTeacher | None:
        """Opens the teacher; None if it is not cached."""
        return open_teacher(self.recipe, self.folder(home))

    def members(self) -> list[WantedTeacher]:
        """The members of an ensemble; empty for a single network."""
        config = self.recipe.config
        if not isinstance(config, TeacherConfig) or config.ensemble == 1:
            return []
        one = config.model_copy(update={"ensemble": 1, "ensemble_by": "folds"})
        images = [self.images] * config.ensemble
        if config.ensemble_by == "folds":
            parts = training_folds(self.images.dataset, self.images.splits, count=config.ensemble)
            images = [dataclasses.replace(self.images, splits=part, unlabelled=None) for part in parts]
        return [
            WantedTeacher(
                recipe=dataclasses.replace(
                    self.recipe,
                    config=one,
                    seed=seed_of("member", self.recipe.seed, number) if number else self.recipe.seed,
                ),
                images=each,
                kept=self.kept,
            )
            for number, each in enumerate(images)
        ]


def at_own_size(images: Materials, recipe: TeacherRecipe, study: StudyConfig, home: Path) -> Materials:
    """Loads the same images and split at the teacher's own size."""
    if recipe.own_task == study.data.task:
        return images
    dataset = load_dataset(study.data.model_copy(update={"size": recipe.own_task.height}), home)
    assert [info.id for info in dataset.infos] == [info.id for info in images.dataset.infos], "they are the same files"
    splits = images.splits
    own = splits_of(dataset, train=splits.train, validation=splits.validation, test=splits.test)
    return dataclasses.replace(images, dataset=dataset, splits=own)


def take_teacher(recipe: TeacherRecipe, materials: Materials, device: torch.device) -> Trained:
    """Loads an already trained teacher and predicts the materials' images, which must have the teacher's own size.

    Raises TeacherError if its file does not match the settings, DataError if predictions are missing or unreadable.
    """
    config, data = recipe.config, materials.training_data(device)
    if isinstance(config, PredictionsTeacher):
        predicted = _predicted(config, materials, recipe.task)
        return as_trained(predicted, data, task=recipe.task, params=config.params or 0)
    path = expanded(config.file or "", field="teacher.file")
    if isinstance(config, TeacherConfig):
        return as_trained(load_network(config, path, recipe.own_task).to(device), data, task=recipe.task)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TeacherError(f"teacher.file: cannot read {config.file}: {error.strerror or error}") from error
    network = OnnxNetwork(config, content, recipe.task)
    taken = as_trained(network, data, task=recipe.task, params=params_of(content))
    assert taken.logits is not None, "a teacher has logits"
    if config.output == "logits" and taken.logits.min() >= 0 and taken.logits.max() <= 1:
        raise TeacherError(
            f"teacher.file: {config.file}: all outputs are between 0 and 1, so as logits they would predict a lesion "
            "in every pixel; write teacher.output: probabilities"
        )
    return taken


def _predicted(config: PredictionsTeacher, materials: Materials, task: Task) -> PredictedTeacher:
    """Reads all predictions; every training, validation and unlabelled image must have one."""
    folder = PredictionFolder(expanded(config.folder, field="teacher.folder"))
    dataset, splits, more = materials.dataset, materials.splits, materials.unlabelled
    extra = [] if more is None else [more.whole.infos[position].id for position in more.positions]
    ids = [info.id for info in dataset.infos]
    frame = Frame(height=task.height, width=task.width, pads=dataset.pads)
    both = folder.read([*ids, *extra], frame=frame, outputs=task.outputs)
    found = both[: len(ids)]
    needed = sorted({*splits.train, *splits.validation})
    require_all(
        [found[position] for position in needed],
        [ids[position] for position in needed],
        folder=config.folder,
        of="training and validation",
    )
    images = [np.asarray(dataset.images[position]) for position, one in enumerate(found) if one is not None]
    maps = [one for one in found if one is not None]
    if more is not None:
        maps += require_all(both[len(ids) :], extra, folder=config.folder, of="unlabelled")
        images += [np.asarray(more.whole.images[position]) for position in more.positions]
    return PredictedTeacher.of(np.stack(images), maps)


def store_mean(
    wanted: WantedTeacher, members: Sequence[WantedTeacher], study: StudyConfig, home: Path
) -> Callable[[], None]:
    """Computes the mean of cached members and returns a function that writes its folder."""
    device = choose_device(study.device)
    known = [trained for member in members if (trained := member.cached(home)) is not None]
    assert len(known) == len(members), "all members were trained"
    networks = [network for trained in known if isinstance(network := trained.own_network().to(device), Teacher)]
    assert len(networks) == len(known), "no member is an ensemble"
    took = Fitted(epochs=0, best_epoch=0, seconds=sum(trained.scores.train_seconds for trained in known))
    images = at_own_size(dataclasses.replace(wanted.images, unlabelled=None), wanted.recipe, study, home)
    mean = Ensemble(networks).eval()
    return partial(
        store_teacher,
        as_trained(mean, images.training_data(device), took, task=study.data.task),
        recipe=wanted.recipe,
        curve=(),
        folder=wanted.folder(home),
        out_of_fold=_out_of_fold(networks, members, images, device, study.data.task),
    )


def _out_of_fold(
    networks: Sequence[Teacher], members: Sequence[WantedTeacher], images: Materials, device: torch.device, task: Task
) -> OutOfFold | None:
    """Predicts each training image by the member not trained on it; None if all members use all images.

    ``images`` have the members' own size; ``task`` is the students'.
    """
    train = images.splits.train
    left_out = [set(train) - set(member.images.splits.train) for member in members]
    if not any(left_out):
        return None
    by = {position: number for number, positions in enumerate(left_out) for position in positions}
    dice: list[float] = []
    found: dict[int, Tensor] = {}
    for network, positions in zip(networks, map(sorted, left_out), strict=True):
        part = images_at(images.dataset, tuple(positions), device)
        logits = predict_logits(network.to(device), part.pixels)
        dice += dice_per_image(predict_classes(logits), part.masks).tolist()
        found |= zip(positions, resized(logits, task.size).half().cpu(), strict=True)
    return OutOfFold(
        dice=float(np.nanmean(dice)),
        logits=torch.stack([found[position] for position in train]).numpy(),
        members=np.array([by[position] for position in train], dtype=np.int16),
    )


def knows_all(wanted: WantedTeacher, home: Path) -> bool:
    """Whether its logits of all images are cached, including the unlabelled ones, which may have changed."""
    path, more = wanted.folder(home) / KNOWN, wanted.images.unlabelled
    if not path.is_file() or damage_of(path):
        return False
    if more is None:
        return True
    known = PredictedTeacher(load_file(path))
    pixels = torch.from_numpy(np.array(more.whole.images))
    return None not in known.places(normalize(pixels))


def store_known(wanted: WantedTeacher, study: StudyConfig, home: Path) -> Callable[[], None]:
    """Predicts all images at the teacher's own size; returns a function that caches the logits at the students' size.

    If the teacher has left-out members, they predict the training images.
    """
    device, images = choose_device(study.device), wanted.images
    trained = wanted.cached(home)
    assert trained is not None, "the teacher was trained"
    network = trained.own_network().to(device).eval()
    dataset = at_own_size(images, wanted.recipe, study, home).dataset
    large, small = [dataset.images], [images.dataset.images]
    if images.unlabelled is not None:
        data = study.data.model_copy(update={"size": wanted.recipe.own_task.height})
        every = load_unlabelled(data, home, dataset, images.splits)
        assert every is not None, "the study has unlabelled images"
        large.append(every.whole.images)
        small.append(images.unlabelled.whole.images)
    pixels = torch.from_numpy(np.concatenate([np.asarray(part) for part in large]))
    with torch.no_grad():
        logits = torch.cat(
            [
                resized(network(normalize(part.to(device))), study.data.task.size).cpu()
                for part in torch.split(pixels, EVALUATION_BATCH)
            ]
        )
    if trained.left_out(torch.device("cpu")) is not None:
        logits[torch.tensor(images.splits.train)] = trained.logits(torch.device("cpu")).float()
    known = PredictedTeacher.of_logits(np.concatenate([np.asarray(part) for part in small]), logits)
    return partial(atomic_write, str(wanted.folder(home) / KNOWN), save(known.state_dict()))
