"""Estimates how long a search takes, from a few training steps on this machine."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from kdsearch.campaign.driver import workers_of
from kdsearch.campaign.events import Estimated
from kdsearch.campaign.wanted_teachers import WantedTeacher
from kdsearch.config.networks import TeacherConfig
from kdsearch.config.study import StudyConfig
from kdsearch.distill.batches import TrainingData, choose_device, images_at
from kdsearch.distill.materials import Materials
from kdsearch.distill.result import TrainingFailed
from kdsearch.distill.student import Trainer
from kdsearch.distill.teacher import TeacherRecipe, train_teacher
from kdsearch.errors import KdsearchError
from kdsearch.measure.latency import cores
from kdsearch.measure.threads import using_threads
from kdsearch.models.costs import cost_of, over_limit
from kdsearch.search.recipes import choose
from kdsearch.search.sampling import random_value
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import EpochReport

T = TypeVar("T")

STEPS = 3
"""Training steps that are timed, after as many that are not."""
STUDENTS = 5
DRAWS = 200
"""Random students that are drawn at most to find some within the limits."""
PER_TRIAL_S = 1.5
"""Seconds of a trial that are not training: counting, scoring, writing weights, uploading."""
BUSY = 1.2
"""How much slower a step is while the other cores train too, with validation."""


def estimate(study: StudyConfig, images: Materials, home: Path, *, students: int) -> Estimated | None:
    """Times a few steps of the teacher and of random students.

    Returns None on a GPU or a cluster, if no student fits, and if a network cannot be trained, which its own training
    will report.
    """
    try:
        return _estimate(study, images, home, students=students)
    except (KdsearchError, TrainingFailed):
        return None


def _estimate(study: StudyConfig, images: Materials, home: Path, *, students: int) -> Estimated | None:
    if choose_device(study.device).type != "cpu" or study.search.executor == "ray":
        return None
    workers = min(workers_of(study, device="cpu"), max(1, students))
    recipes = _recipes(study)
    if not recipes or not students:
        return None
    threads = 1 if study.search.deterministic else max(1, cores() // workers)
    with using_threads(threads):
        each = [_student_s(recipe, images) for recipe in recipes]
    search = study.search
    return Estimated(
        teacher_s=_teacher_s(study, images, home),
        students_s=students * (BUSY * float(np.mean(each)) * _with_unlabelled(study) + PER_TRIAL_S) / workers,
        students=students,
        workers=workers,
        at_most=search.pruning.pruner != "none" or search.start == "inherit",
    )


def _recipes(study: StudyConfig) -> list[Recipe]:
    """A few random recipes within the limits, without a teacher."""
    rng, found = np.random.default_rng(study.seed), list[Recipe]()
    for _ in range(DRAWS):
        recipe = choose(study, lambda _, value: random_value(value, rng), seed=study.seed)
        if not over_limit(cost_of(recipe.student, study.data.task), study.search.limits):
            found.append(recipe.model_copy(update={"distillation": None}))
        if len(found) == STUDENTS:
            break
    return found


def _student_s(recipe: Recipe, images: Materials) -> float:
    training = recipe.training
    few = _few(images, training.batch_size)
    twice = training.model_copy(update={"epochs": 2, "patience": None})
    timed = recipe.model_copy(update={"training": twice})
    step = _step_s(Trainer(few, None).distil(timed, kept="last"), few, training.batch_size)
    return training.epochs * math.ceil(len(images.splits.train) / training.batch_size) * step


def _teacher_s(study: StudyConfig, images: Materials, home: Path) -> float:
    recipe = TeacherRecipe.of(study)
    if not isinstance(recipe.config, TeacherConfig) or recipe.config.file is not None:
        return 0.0
    if WantedTeacher(recipe=recipe, images=images).cached(home) is not None:
        return 0.0
    training = recipe.config.training
    few = _few(images, training.batch_size)
    alone = recipe.config.ensemble == 1 and not study.search.deterministic
    config = recipe.config.model_copy(
        update={
            "training": training.model_copy(update={"epochs": 2, "patience": None}),
            "ensemble": 1,
            "size": None,
        }
    )
    with using_threads(cores() if alone else 1):
        step = _step_s(train_teacher(replace(recipe, config=config), few, kept="last"), few, training.batch_size)
    steps = training.epochs * math.ceil(len(images.splits.train) / training.batch_size)
    at_once = min(workers_of(study, device="cpu"), recipe.config.ensemble)
    return steps * step * recipe.config.work(study.data.task) / at_once


def _few(images: Materials, batch_size: int) -> TrainingData:
    """A few batches of training images, without validation."""
    device = torch.device("cpu")
    chosen = (images.splits.train * (STEPS * batch_size // len(images.splits.train) + 1))[: STEPS * batch_size]
    return TrainingData(
        train=images_at(images.dataset, chosen, device),
        validation=images_at(images.dataset, images.splits.validation[:1], device),
    )


def _step_s(training: Generator[EpochReport, None, T], few: TrainingData, batch_size: int) -> float:
    """Seconds of a step in the second epoch."""
    first, second = next(training).seconds, next(training).seconds
    training.close()
    return (second - first) / math.ceil(len(few.train) / batch_size)


def _with_unlabelled(study: StudyConfig) -> float:
    """By how much a step is longer, because it also processes unlabelled images."""
    return 1 / (1 - study.data.unlabelled_fraction) if study.data.unlabelled else 1.0
