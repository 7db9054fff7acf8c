"""The teachers that a study or a confirmation wants: which are cached, which are trained, and the means of several."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save

from kdsearch.config.study import StudyConfig
from kdsearch.config.teacher import PredictionsTeacher, TeacherConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.folds import training_folds
from kdsearch.data.splits import splits_of
from kdsearch.data.unlabelled import load_unlabelled
from kdsearch.distill.arrays import choose_device, images_at
from kdsearch.distill.loop import EVALUATION_BATCH, Fitted, predict_logits
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Kept
from kdsearch.distill.teacher import TeacherRecipe, as_trained
from kdsearch.distill.teacher_folder import KNOWN, TrainedTeacher, open_teacher, store_teacher, teacher_folder
from kdsearch.files.digests import digest, seed_of
from kdsearch.files.home import checkpoint_folder
from kdsearch.files.whole import lock_of, write_whole
from kdsearch.measure.scores import dice_per_image, predict_classes
from kdsearch.models.contract import normalise
from kdsearch.models.given_teachers import PredictedTeacher
from kdsearch.models.teacher import Ensemble, Teacher, resized
from kdsearch.search.events import DriverEvent, Resumed, Waiting
from kdsearch.trials.record import job_of_teacher
from kdsearch.workers.dispatcher import Dispatcher
from kdsearch.workers.teachers import LackingTeacher, store_taken, train_teachers

LOCK_POLL_S = 0.5


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
        one = config.model_copy(update={"ensemble": 1, "members": "folds"})
        images = [self.images] * config.ensemble
        if config.members == "folds":
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


def add_teacher(
    study: StudyConfig, images: Materials, jobs: Dispatcher, *, home: Path, study_id: str
) -> Generator[DriverEvent, None, Materials]:
    """The images with their teacher, which workers train where it is not cached.

    Raises KdsearchError where it cannot be trained.
    """
    wanted = WantedTeacher(recipe=TeacherRecipe.of(study), images=images)
    alone = not wanted.members() and not study.search.deterministic
    # students wait for it, so that all cores are idle; one thread gives the same on any number of them
    threads: Literal["all"] | int = "all" if alone else 1
    (found,) = yield from add_teachers(study, [wanted], jobs, home=home, study_id=study_id, threads=threads)
    return found


def add_teachers(
    study: StudyConfig,
    wanted: Sequence[WantedTeacher],
    jobs: Dispatcher,
    *,
    home: Path,
    study_id: str,
    threads: Literal["all"] | int,
) -> Generator[DriverEvent, None, list[Materials]]:
    """Each one's images with their teacher; those not cached are trained, as many at once as there are workers.

    Raises KdsearchError where one cannot be trained.
    """
    with contextlib.ExitStack() as locks:
        for folder in sorted({each.folder(home) for one in wanted for each in (one, *one.members())}):
            lock = lock_of(folder)
            yield from _acquired(lock)
            locks.callback(lock.release)
        lacking = [one for one in wanted if one.cached(home) is None]
        single = [part for one in lacking for part in one.members() or [one] if part.cached(home) is None]
        made = [_lacking(one, study, home, study_id=study_id) for one in single]
        if study.teacher.file is not None:
            for each in made:
                store_taken(each, choose_device(study.device))
        else:
            yield from train_teachers(made, jobs, home=home, threads=threads)
        for one in lacking:
            if members := one.members():
                _store_mean(one, members, study, home)
        for one in wanted:
            if one.recipe.own_size != study.data.size and not _knows_all(one, home):
                _store_known(one, study, home)
    return [_with_teacher(one, home) for one in wanted]


def _lacking(one: WantedTeacher, study: StudyConfig, home: Path, *, study_id: str) -> LackingTeacher:
    folder = one.folder(home)
    images = one.images if study.teacher.file is not None else dataclasses.replace(one.images, unlabelled=None)
    return LackingTeacher(
        recipe=one.recipe,
        materials=_at_own_size(images, one.recipe, study, home),
        folder=folder,
        checkpoint=_checkpoint_of(folder, study, home, study_id=study_id),
        kept=one.kept,
    )


def _at_own_size(images: Materials, recipe: TeacherRecipe, study: StudyConfig, home: Path) -> Materials:
    """The same images and split at the size that the teacher is trained on."""
    if recipe.own_size == study.data.size:
        return images
    dataset = load_dataset(study.data.model_copy(update={"size": recipe.own_size}), home)
    assert [info.id for info in dataset.infos] == [info.id for info in images.dataset.infos], "they are the same files"
    splits = images.splits
    own = splits_of(dataset, train=splits.train, validation=splits.validation, test=splits.test)
    return dataclasses.replace(images, dataset=dataset, splits=own)


def _store_mean(wanted: WantedTeacher, members: Sequence[WantedTeacher], study: StudyConfig, home: Path) -> None:
    """Makes the folder of the mean of networks that are cached."""
    device = choose_device(study.device)
    known = [trained for member in members if (trained := member.cached(home)) is not None]
    assert len(known) == len(members), "they were trained"
    networks = [network for trained in known if isinstance(network := trained.own_network().to(device), Teacher)]
    assert len(networks) == len(known), "no member is a mean itself"
    took = Fitted(epochs=0, best_epoch=0, seconds=sum(trained.scores.train_seconds for trained in known))
    images = _at_own_size(dataclasses.replace(wanted.images, unlabelled=None), wanted.recipe, study, home)
    mean = Ensemble(networks).eval()
    store_teacher(
        as_trained(mean, images.training_data(device), took, size=study.data.size),
        recipe=wanted.recipe,
        curve=(),
        folder=wanted.folder(home),
        out_of_fold=_out_of_fold(networks, members, images, device),
    )


def _knows_all(wanted: WantedTeacher, home: Path) -> bool:
    """Whether its answers about all images are kept, about unlabelled ones too, which may be others than last time."""
    place, more = wanted.folder(home) / KNOWN, wanted.images.unlabelled
    if not place.is_file() or more is None:
        return place.is_file()
    known = PredictedTeacher(load_file(place))
    grey = torch.from_numpy(np.array(more.whole.images))
    return None not in known.places(normalise(grey))


def _store_known(wanted: WantedTeacher, study: StudyConfig, home: Path) -> None:
    """Keeps the logits of all images at the teacher's own size, for whoever asks about one of them at the students'."""
    device, images = choose_device(study.device), wanted.images
    trained = wanted.cached(home)
    assert trained is not None, "it was trained"
    network = trained.own_network().to(device).eval()
    dataset = _at_own_size(images, wanted.recipe, study, home).dataset
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
    known = PredictedTeacher.of_logits(np.concatenate([np.asarray(part) for part in small]), logits)
    write_whole(str(wanted.folder(home) / KNOWN), save(known.state_dict()))


def _out_of_fold(
    networks: Sequence[Teacher], members: Sequence[WantedTeacher], images: Materials, device: torch.device
) -> float | None:
    """Mean Dice of the training images, each by the member that did not learn from it; None where there is none."""
    found: list[float] = []
    for network, member in zip(networks, members, strict=True):
        left_out = tuple(sorted(set(images.splits.train) - set(member.images.splits.train)))
        if left_out:
            part = images_at(images.dataset, left_out, device)
            with torch.no_grad():
                predicted = predict_classes(predict_logits(network.to(device), part.grey))
            found += dice_per_image(predicted, (part.masks > 0).long()).tolist()
    return float(np.nanmean(found)) if found else None


def _checkpoint_of(folder: Path, study: StudyConfig, home: Path, *, study_id: str) -> str:
    """Where the study file says; empty for a place beside the folder."""
    if study.search.checkpoints is None:
        return ""
    place = checkpoint_folder(home, study.name, study.search.checkpoints, study_id=study_id)
    return f"{place}/{job_of_teacher(folder.name)}.checkpoint"


def _with_teacher(wanted: WantedTeacher, home: Path) -> Materials:
    teacher = wanted.cached(home)
    assert teacher is not None, "its folder was written"
    return dataclasses.replace(wanted.images, trained_teacher=teacher)


def _acquired(lock: FileLock) -> Iterator[Waiting | Resumed]:
    """Takes the lock, once another study that trains the same teacher has done with it."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield Waiting(reason="it takes it from there", what="another study trains this teacher")
        while not lock.is_locked:
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=LOCK_POLL_S)
        yield Resumed()
