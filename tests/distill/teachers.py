"""Trains a teacher where a test needs one."""

from __future__ import annotations

from pathlib import Path

from kdsearch.config.study import StudyConfig
from kdsearch.distill.arrays import TrainingData
from kdsearch.distill.teacher import TeacherRecipe, train_teacher
from kdsearch.distill.teacher_folder import TrainedTeacher, open_teacher, store_teacher
from tests.search.setups import finish


def teach(study: StudyConfig, data: TrainingData, folder: Path) -> TrainedTeacher:
    """The study's teacher, trained here and kept in that folder."""
    recipe = TeacherRecipe.of(study)
    curve, trained = finish(train_teacher(recipe, data))
    store_teacher(trained, recipe=recipe, curve=tuple(curve), folder=folder)
    teacher = open_teacher(recipe, folder)
    assert teacher is not None
    return teacher
