"""From a recipe to a student, for every variant, to the bit."""

from __future__ import annotations

import itertools

import pytest
import torch
from safetensors.torch import load

from kdsearch.config.ranges import values_of
from kdsearch.config.recipe import Recipe
from kdsearch.config.space import choose
from kdsearch.data.cache import load_dataset
from kdsearch.data.splits import split
from kdsearch.distill.arrays import training_data
from kdsearch.distill.student import Workshop, cost_of
from kdsearch.distill.teacher import teacher_folder, train_teacher
from kdsearch.models.unet import build_student

VARIANTS = [None, *itertools.product(("logits", "hidden", "regressor"), ("mse", "kld"), ("same", "weak"))]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def workshop(tiny, home):
    dataset = load_dataset(tiny.data, home)
    splits = split(dataset, tiny.data.split, train_without_lesion=False)
    data = training_data(dataset, splits, torch.device("cpu"))
    return Workshop(data, _finish(train_teacher(tiny, data, teacher_folder(tiny, splits.fingerprint, home))))


def _finish(training):
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value


def _recipe(study, variant, *, seed=0) -> Recipe:
    recipe = choose(study, lambda _name, value: values_of(value)[0], seed=seed)
    if variant is None:
        return recipe
    path, loss, view = variant
    content = recipe.model_dump()
    content["distillation"] = {
        "path": path,
        "loss": loss,
        "teacher_view": view,
        "weight": 0.5,
        "temperature": 2.0 if loss == "kld" else None,
    }
    return Recipe.model_validate(content)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_makes_the_same_student_twice(tiny, workshop, variant):
    recipe = _recipe(tiny, variant)
    first = _finish(workshop.distil(recipe))
    second = _finish(workshop.distil(recipe))
    a, b = load(first.weights), load(second.weights)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert first.scores.overlap == second.scores.overlap


def test_weights_hold_the_student_alone_and_its_counted_parameters(tiny, workshop):
    recipe = _recipe(tiny, ("regressor", "mse", "weak"))
    trained = _finish(workshop.distil(recipe))
    student = build_student(recipe.student)
    student.load_state_dict(load(trained.weights))
    assert trained.scores.params == sum(p.numel() for p in student.parameters())
    cost = cost_of(recipe, size=32)
    assert (trained.scores.params, trained.scores.macs) == (cost.params, cost.macs)


def test_distilled_students_differ_from_plain_ones(tiny, workshop):
    weights = []
    for variant in (None, ("logits", "kld", "weak"), ("logits", "kld", "same")):
        trained = _finish(workshop.distil(_recipe(tiny, variant)))
        weights.append(load(trained.weights)["head.weight"])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
