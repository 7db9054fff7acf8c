"""The images, split and teacher that students are trained with."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kdsearch.data.cache import open_dataset, open_part
from kdsearch.data.dataset import Dataset, Splits, UnlabelledPart, UnlabelledPlace
from kdsearch.distill.batches import TrainingData, training_data
from kdsearch.distill.feature_maps import MapBudget
from kdsearch.distill.student import Trainer
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import TrainedTeacher, open_teacher
from kdsearch.files.digests import digest

MOST_KEPT = 2
"""How many materials a worker or a cluster's object store keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """Opened images, with their split and teacher."""

    dataset: Dataset
    splits: Splits
    trained_teacher: TrainedTeacher | None = None
    """None if a teacher is still to be trained on them."""
    unlabelled: UnlabelledPart | None = None
    """Images without masks; None if the study has none."""
    cached_because: str = ""
    """Why the images come from the cache: the study's folders are unreadable or have changed. Empty if they do not."""

    @property
    def teacher(self) -> TrainedTeacher:
        """The teacher; only for the materials of students."""
        assert self.trained_teacher is not None, "a student's materials include a teacher"
        return self.trained_teacher

    @property
    def key(self) -> str:
        """Identifies the images, the split and the teacher."""
        more = () if self.unlabelled is None else (self.unlabelled.fingerprint,)
        return digest(self.splits.fingerprint, self.trained_teacher.id if self.trained_teacher else "", *more)

    def with_splits(self, splits: Splits) -> Materials:
        """The same images with another split, and without a teacher."""
        unlabelled = None if self.unlabelled is None else self.unlabelled.beside(self.dataset, splits)
        return Materials(dataset=self.dataset, splits=splits, unlabelled=unlabelled, cached_because=self.cached_because)

    def training_data(self, device: torch.device) -> TrainingData:
        return training_data(self.dataset, self.splits, device, self.unlabelled)

    def place(self, home: Path) -> Place:
        """Where the materials are in kdsearch's folder on this machine."""
        return Place(
            key=self.key,
            home=home,
            data=self.dataset.fingerprint,
            splits=self.splits,
            teacher=self.trained_teacher.recipe if self.trained_teacher else None,
            teacher_folder=self.trained_teacher.folder if self.trained_teacher else None,
            unlabelled=None if self.unlabelled is None else self.unlabelled.place(),
        )

    def packed(self) -> Materials:
        """Copies everything into memory, so that it can be sent to another machine."""
        images, masks = np.asarray(self.dataset.images), np.asarray(self.dataset.masks)
        dataset = dataclasses.replace(self.dataset, images=images, masks=masks)
        teacher = self.trained_teacher.packed() if self.trained_teacher else None
        unlabelled = None if self.unlabelled is None else self.unlabelled.packed()
        return dataclasses.replace(self, dataset=dataset, trained_teacher=teacher, unlabelled=unlabelled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where materials are on this machine."""

    key: str
    home: Path
    data: str
    """The data set's fingerprint."""
    splits: Splits
    teacher: TeacherRecipe | None
    teacher_folder: Path | None
    """Recipe and folder are None if there is no teacher yet."""
    unlabelled: UnlabelledPlace | None = None
    """None if all images have masks."""

    def open(self) -> Materials:
        """Opens the materials with memory-mapped arrays."""
        teacher = None
        if self.teacher is not None and self.teacher_folder is not None:
            teacher = open_teacher(self.teacher, self.teacher_folder)
            assert teacher is not None, "the driver trains the teacher before it submits students"
        return Materials(
            dataset=open_dataset(self.home, self.data),
            splits=self.splits,
            trained_teacher=teacher,
            unlabelled=None if self.unlabelled is None else open_part(self.home, self.unlabelled),
        )


class Trainers:
    """The trainers of a process by the key of their materials; keeps the ``most`` recently used ones."""

    def __init__(self, device: torch.device, *, most: int = MOST_KEPT) -> None:
        self._device, self._most = device, most
        self._known: OrderedDict[str, Trainer] = OrderedDict()
        self._budget = MapBudget()

    def get(self, key: str, open_materials: Callable[[], Materials]) -> Trainer:
        """Returns the trainer for these materials and opens them if necessary."""
        if key not in self._known:
            for other in [other for other, trainer in self._known.items() if trainer.makes_teachers]:
                del self._known[other]  # the next students use the same images, with a teacher
            while len(self._known) >= self._most:  # frees memory before more is opened
                self._known.popitem(last=False)
            materials = open_materials()
            data, teacher = materials.training_data(self._device), materials.trained_teacher
            self._known[key] = Trainer(data, teacher, budget=self._budget)
        self._known.move_to_end(key)
        return self._known[key]
