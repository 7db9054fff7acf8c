"""Trains a teacher if a test needs one."""

from __future__ import annotations

from pathlib import Path

from kdsearch.config.study import StudyConfig
from kdsearch.distill.batches import TrainingData
from kdsearch.distill.teacher import TeacherRecipe, as_trained, load_network, train_teacher
from kdsearch.distill.teacher_folder import TrainedTeacher, open_teacher, store_teacher
from tests.search.setups import finish


def teach(study: StudyConfig, data: TrainingData, folder: Path) -> TrainedTeacher:
    """The study's teacher, trained here unless the folder contains it."""
    recipe = TeacherRecipe.of(study)
    if (made := open_teacher(recipe, folder)) is not None:
        return made
    if study.teacher.file is None:
        curve, trained = finish(train_teacher(recipe, data))
    else:
        network = load_network(study.teacher, Path(study.teacher.file), recipe.own_task)
        curve, trained = [], as_trained(network, data, task=recipe.task)
    store_teacher(trained, recipe=recipe, curve=tuple(curve), folder=folder)
    teacher = open_teacher(recipe, folder)
    assert teacher is not None
    return teacher
