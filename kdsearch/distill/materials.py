"""What students are made from and judged by: images, their split, and a teacher."""

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
"""Materials that a worker, or a cluster's object store, keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """Images, split and teacher, opened."""

    dataset: Dataset
    splits: Splits
    trained_teacher: TrainedTeacher | None = None
    """None where a teacher is still to be made from them."""
    unlabelled: UnlabelledPart | None = None
    """Images without masks; None where the study has none."""
    cached_because: str = ""
    """Why the images come from the cache: the study's folders cannot be read, or hold others. Empty if they don't."""

    @property
    def teacher(self) -> TrainedTeacher:
        """The teacher, of materials that have one."""
        assert self.trained_teacher is not None, "these materials are a teacher's, not a student's"
        return self.trained_teacher

    @property
    def key(self) -> str:
        """Stands for all of them."""
        more = () if self.unlabelled is None else (self.unlabelled.fingerprint,)
        return digest(self.splits.fingerprint, self.trained_teacher.id if self.trained_teacher else "", *more)

    def with_splits(self, splits: Splits) -> Materials:
        """The same images under another split, which a teacher is still to be made for."""
        unlabelled = None if self.unlabelled is None else self.unlabelled.beside(self.dataset, splits)
        return Materials(dataset=self.dataset, splits=splits, unlabelled=unlabelled, cached_because=self.cached_because)

    def training_data(self, device: torch.device) -> TrainingData:
        """The training, validation and unlabelled images on the device."""
        return training_data(self.dataset, self.splits, device, self.unlabelled)

    def place(self, home: Path) -> Place:
        """Where they lie under kdsearch's folder on this machine."""
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
        """The same in memory, ready to travel to another machine."""
        images, masks = np.asarray(self.dataset.images), np.asarray(self.dataset.masks)
        dataset = dataclasses.replace(self.dataset, images=images, masks=masks)
        teacher = self.trained_teacher.packed() if self.trained_teacher else None
        unlabelled = None if self.unlabelled is None else self.unlabelled.packed()
        return dataclasses.replace(self, dataset=dataset, trained_teacher=teacher, unlabelled=unlabelled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where materials lie on this machine."""

    key: str
    home: Path
    data: str
    """The data set's fingerprint."""
    splits: Splits
    teacher: TeacherRecipe | None
    teacher_folder: Path | None
    """Both None where there is no teacher yet."""
    unlabelled: UnlabelledPlace | None = None
    """None where there are no images without masks."""

    def open(self) -> Materials:
        """The materials, their arrays memory-mapped."""
        teacher = None
        if self.teacher is not None and self.teacher_folder is not None:
            teacher = open_teacher(self.teacher, self.teacher_folder)
            assert teacher is not None, "the driver makes the teacher before it submits its students' jobs"
        return Materials(
            dataset=open_dataset(self.home, self.data),
            splits=self.splits,
            trained_teacher=teacher,
            unlabelled=None if self.unlabelled is None else open_part(self.home, self.unlabelled),
        )


class Trainers:
    """A process's trainers, by the key of their materials; the last few are kept."""

    def __init__(self, device: torch.device, *, most: int = MOST_KEPT) -> None:
        """``most``: how many are kept."""
        self._device, self._most = device, most
        self._known: OrderedDict[str, Trainer] = OrderedDict()
        self._budget = MapBudget()

    def get(self, key: str, open_materials: Callable[[], Materials]) -> Trainer:
        """The trainer of those materials, which are opened where they are not known."""
        if key not in self._known:
            for other in [other for other, trainer in self._known.items() if trainer.makes_teachers]:
                del self._known[other]  # its images are those of the students that come next
            while len(self._known) >= self._most:  # before more is opened, so that there is room for it
                self._known.popitem(last=False)
            materials = open_materials()
            data, teacher = materials.training_data(self._device), materials.trained_teacher
            self._known[key] = Trainer(data, teacher, budget=self._budget)
        self._known.move_to_end(key)
        return self._known[key]
