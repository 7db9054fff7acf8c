"""A teacher that images are to have, where it lies, and the networks that it is the mean of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from kdsearch.config.networks import PredictionsTeacher, TeacherConfig
from kdsearch.config.study import StudyConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.splits import splits_of, training_folds
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import Kept
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import TrainedTeacher, open_teacher, teacher_folder
from kdsearch.files.digests import digest, seed_of


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


def at_own_size(images: Materials, recipe: TeacherRecipe, study: StudyConfig, home: Path) -> Materials:
    """The same images and split at the size that the teacher is trained on."""
    if recipe.own_size == study.data.size:
        return images
    dataset = load_dataset(study.data.model_copy(update={"size": recipe.own_size}), home)
    assert [info.id for info in dataset.infos] == [info.id for info in images.dataset.infos], "they are the same files"
    splits = images.splits
    own = splits_of(dataset, train=splits.train, validation=splits.validation, test=splits.test)
    return dataclasses.replace(images, dataset=dataset, splits=own)
