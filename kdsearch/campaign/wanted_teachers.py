"""Teachers that images are to have: where they are kept, and those that are made without training."""

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

from kdsearch.config.networks import OnnxTeacher, PredictionsTeacher, TeacherConfig
from kdsearch.config.study import StudyConfig
from kdsearch.data.cache import load_dataset, load_unlabelled
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
from kdsearch.files.digests import digest, seed_of
from kdsearch.files.home import expanded
from kdsearch.files.whole import write_whole
from kdsearch.measure.scores import dice_per_image, predict_classes
from kdsearch.models.contract import normalise
from kdsearch.models.given_teachers import OnnxNetwork, PredictedTeacher, params_of
from kdsearch.models.teacher import Ensemble, Teacher, resized


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTeacher:
    """A teacher that images are to have."""

    recipe: TeacherRecipe
    images: Materials
    kept: Kept = "best"
    """Which epoch's weights are the teacher's."""

    def folder(self, home: Path) -> Path:
        """Where it lies."""
        return teacher_folder(self.recipe, _made_from(self.recipe, self.images), home, kept=self.kept)

    def cached(self, home: Path) -> TrainedTeacher | None:
        """It, or None where it is still to be made."""
        return open_teacher(self.recipe, self.folder(home))

    def members(self) -> list[WantedTeacher]:
        """The networks that it is the mean of; none where it is one network."""
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
                    seed=seed_of("member", self.recipe.seed, place) if place else self.recipe.seed,
                ),
                images=each,
                kept=self.kept,
            )
            for place, each in enumerate(images)
        ]


def _made_from(recipe: TeacherRecipe, images: Materials) -> str:
    """Stands for the images that a teacher is made from; predictions are kept of unlabelled ones too."""
    if isinstance(recipe.config, PredictionsTeacher) and images.unlabelled is not None:
        return digest(images.splits.fingerprint, images.unlabelled.fingerprint)
    return images.splits.fingerprint


def at_own_size(images: Materials, recipe: TeacherRecipe, study: StudyConfig, home: Path) -> Materials:
    """The same images and split at the size that the teacher is trained on."""
    if recipe.own_size == study.data.size:
        return images
    dataset = load_dataset(study.data.model_copy(update={"size": recipe.own_size}), home)
    assert [info.id for info in dataset.infos] == [info.id for info in images.dataset.infos], "they are the same files"
    splits = images.splits
    own = splits_of(dataset, train=splits.train, validation=splits.validation, test=splits.test)
    return dataclasses.replace(images, dataset=dataset, splits=own)


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


def store_mean(
    wanted: WantedTeacher, members: Sequence[WantedTeacher], study: StudyConfig, home: Path
) -> Callable[[], None]:
    """What makes the folder of the mean of networks that are cached."""
    device = choose_device(study.device)
    known = [trained for member in members if (trained := member.cached(home)) is not None]
    assert len(known) == len(members), "they were trained"
    networks = [network for trained in known if isinstance(network := trained.own_network().to(device), Teacher)]
    assert len(networks) == len(known), "no member is a mean itself"
    took = Fitted(epochs=0, best_epoch=0, seconds=sum(trained.scores.train_seconds for trained in known))
    images = at_own_size(dataclasses.replace(wanted.images, unlabelled=None), wanted.recipe, study, home)
    mean = Ensemble(networks).eval()
    return partial(
        store_teacher,
        as_trained(mean, images.training_data(device), took, size=study.data.size),
        recipe=wanted.recipe,
        curve=(),
        folder=wanted.folder(home),
        out_of_fold=_out_of_fold(networks, members, images, device, size=study.data.size),
    )


def _out_of_fold(
    networks: Sequence[Teacher], members: Sequence[WantedTeacher], images: Materials, device: torch.device, *, size: int
) -> OutOfFold | None:
    """What each training image's left-out member predicts; None if every member learnt from all images.

    ``images`` are of the members' own size, ``size`` is the students'.
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
        logits = predict_logits(network.to(device), part.grey)
        dice += dice_per_image(predict_classes(logits), (part.masks > 0).long()).tolist()
        found |= zip(positions, resized(logits, size).half().cpu(), strict=True)
    return OutOfFold(
        dice=float(np.nanmean(dice)),
        logits=torch.stack([found[position] for position in train]).numpy(),
        members=np.array([by[position] for position in train], dtype=np.int16),
    )


def knows_all(wanted: WantedTeacher, home: Path) -> bool:
    """Whether its answers about all images are kept, about unlabelled ones too, which may be others than last time."""
    place, more = wanted.folder(home) / KNOWN, wanted.images.unlabelled
    if not place.is_file() or damage_of(place):
        return False
    if more is None:
        return True
    known = PredictedTeacher(load_file(place))
    grey = torch.from_numpy(np.array(more.whole.images))
    return None not in known.places(normalise(grey))


def store_known(wanted: WantedTeacher, study: StudyConfig, home: Path) -> Callable[[], None]:
    """What keeps the logits of all images at the teacher's own size; students ask about them at theirs.

    Those of training images are the left-out members', if the teacher has some.
    """
    device, images = choose_device(study.device), wanted.images
    trained = wanted.cached(home)
    assert trained is not None, "it was trained"
    network = trained.own_network().to(device).eval()
    dataset = at_own_size(images, wanted.recipe, study, home).dataset
    large, small = [dataset.images], [images.dataset.images]
    if images.unlabelled is not None:
        data = study.data.model_copy(update={"size": wanted.recipe.own_size})
        every = load_unlabelled(data, home, dataset, images.splits)
        assert every is not None, "the study has some"
        large.append(every.whole.images)
        small.append(images.unlabelled.whole.images)
    grey = torch.from_numpy(np.concatenate([np.asarray(part) for part in large]))
    with torch.no_grad():
        logits = torch.cat(
            [
                resized(network(normalise(part.to(device))), study.data.size).cpu()
                for part in torch.split(grey, EVALUATION_BATCH)
            ]
        )
    if trained.left_out(torch.device("cpu")) is not None:
        logits[torch.tensor(images.splits.train)] = trained.logits(torch.device("cpu")).float()
    known = PredictedTeacher.of_logits(np.concatenate([np.asarray(part) for part in small]), logits)
    return partial(write_whole, str(wanted.folder(home) / KNOWN), save(known.state_dict()))
