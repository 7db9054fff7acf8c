"""What is made of teachers that are trained: the mean of several, and what one of its own size says of all images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from kdsearch.config.study import StudyConfig
from kdsearch.data.cache import load_unlabelled
from kdsearch.distill.batches import choose_device, images_at
from kdsearch.distill.loop import EVALUATION_BATCH, Fitted, predict_logits
from kdsearch.distill.materials import Materials
from kdsearch.distill.teacher import as_trained
from kdsearch.distill.teacher_folder import KNOWN, OutOfFold, damage_of, store_teacher
from kdsearch.files.whole import write_whole
from kdsearch.measure.scores import dice_per_image, predict_classes
from kdsearch.models.contract import normalise
from kdsearch.models.given_teachers import PredictedTeacher
from kdsearch.models.teacher import Ensemble, Teacher, resized
from kdsearch.search.wanted_teacher import WantedTeacher, at_own_size


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
