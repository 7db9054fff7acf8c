"""Training a student from a recipe, bit for bit, for every variant."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from safetensors.torch import load

from kdsearch.config.distillation import LOSSES, DistillationSpec
from kdsearch.config.load import load_study
from kdsearch.config.networks import TimmSpec
from kdsearch.config.task import square
from kdsearch.distill.feature_maps import HiddenMaps
from kdsearch.distill.student import Trainer
from kdsearch.errors import StudyFileError
from kdsearch.models.costs import cost_of, require_comparable
from kdsearch.models.students import build_student
from kdsearch.trials.recipe import Recipe
from tests.distill.recipes import recipe_of
from tests.search.setups import finish

VARIANTS = [
    None,
    *((path, loss, view, loss_mix)
      for path, losses in LOSSES.items() if path != "hidden"
      for loss, view, loss_mix in itertools.product(losses, ("same", "weak"), ("add", "interpolate"))),
]  # fmt: skip
"""``hidden`` needs as many channels in both; see test_objective."""


@pytest.fixture
def trainer(bench):
    return Trainer(bench.materials.training_data(torch.device("cpu")), bench.materials.teacher)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_reproducible(tiny, trainer, variant):
    recipe = recipe_of(tiny, variant)
    first = finish(trainer.distil(recipe))[1]
    second = finish(trainer.distil(recipe))[1]
    a, b = load(first.weights), load(second.weights)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert first.scores.overlap == second.scores.overlap


@pytest.mark.parametrize(("width", "depth", "fits"), [(14, 3, True), (7, 4, True), ("{int: [6, 7]}", 4, False)])
def test_direct_comparison_of_unequal_channels_is_refused(study_file, width, depth, fits):
    text = f"name: a\ndata: {{size: 64}}\nteacher: {{encoder_depth: 4}}\nstudent: {{width: {width}, depth: {depth}}}\n"
    study = load_study(study_file(text + "distillation: {path: {choice: [none, hidden]}, loss: mse}\n"))
    if fits:
        require_comparable(study)
        return
    with pytest.raises(StudyFileError, match="teacher has 112 channels and a U-Net of width 6 .* has 96; use"):
        require_comparable(study)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("{path: attention, loss: mse, stride: 8}", ""),
        ("{path: attention, loss: mse, stride: {choice: [2, 4, 8]}}", ""),
        ("{path: attention, loss: mse, stride: 32}", "stride 32, but the teacher has strides 2, 4, 8, 16; use one"),
        ("{path: regressor, loss: kld, stride: 1}", "stride 1, but the teacher has strides 2, 4, 8, 16; use one"),
        (
            "{path: attention, loss: mse, stride: {choice: [2, 16]}}",
            "but a U-Net of width 8 and depth 3 .* has strides 1, 2, 4, 8",
        ),
        ("{path: hidden, loss: mse, stride: 8}", "the teacher has 40 channels and a U-Net of width 8 .* has 64;"),
        ("{path: hidden, loss: mse, stride: 4}", "the teacher has 24 channels and a U-Net of width 8 .* has 32;"),
    ],
)
def test_terms_without_comparable_maps_are_refused(study_file, term, message):
    text = "name: a\ndata: {size: 64}\nteacher: {encoder_depth: 4}\nstudent: {width: 8, depth: {int: [3, 4]}}\n"
    study = load_study(study_file(f"{text}distillation: [{term}]\n"))
    with pytest.raises(StudyFileError, match=message) if message else contextlib.nullcontext():
        require_comparable(study)


def test_logits_have_no_stride(study_file):
    with pytest.raises(StudyFileError, match="stride applies only to hidden, attention and regressor; remove it"):
        load_study(study_file("name: a\ndistillation: [{path: logits, loss: mse, stride: 4}]\n"))


@pytest.mark.parametrize(("on", "loss"), [("attention", "mse"), ("regressor", "kld")])
def test_terms_compare_maps_of_the_strides_they_name(tiny, bench, trainer, monkeypatch, on, loss):
    content = recipe_of(tiny, None).model_dump()
    terms = tuple({"path": on, "loss": loss, "stride": stride, "weight": 0.5} for stride in (2, 4, None))
    students, measured = [], set()

    def measure(*given, stride, **settings):
        measured.add(stride)
        return HiddenMaps(*given, stride=stride, **settings)

    monkeypatch.setattr("kdsearch.distill.student.HiddenMaps", measure)
    monkeypatch.setattr(type(bench.materials.teacher), "logits", lambda *_: pytest.fail("no term compares logits"))
    for chosen in (terms, terms[:1], terms[2:]):
        content["distillation"] = {"terms": chosen, "loss_mix": "add"}
        students.append(finish(trainer.distil(Recipe.model_validate(content)))[1].weights)
    assert len(set(students)) == 3
    assert measured == {2, 4, None}, "maps that no term uses are not measured"


def test_weights_contain_only_the_student_with_its_counted_parameters(tiny, trainer):
    recipe = recipe_of(tiny, ("regressor", "mse", "weak", "add"))
    trained = finish(trainer.distil(recipe))[1]
    student = build_student(recipe.student)
    student.load_state_dict(load(trained.weights))
    assert trained.scores.params == sum(p.numel() for p in student.parameters())
    cost = cost_of(recipe.student, square(32))
    assert (trained.scores.params, trained.scores.macs) == (cost.params, cost.macs)


def test_distilled_students_differ_from_undistilled_ones(tiny, trainer):
    weights = []
    for variant in (None, ("logits", "kld", "weak", "add"), ("logits", "kld", "same", "add")):
        trained = finish(trainer.distil(recipe_of(tiny, variant)))[1]
        weights.append(load(trained.weights)["head.weight"])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_attention_at_every_stride_averages_over_shared_strides(tiny, trainer):
    """The teacher has maps of strides 2 to 8, the student of 1 to 4."""

    def recipe(*terms):
        spec = DistillationSpec.model_validate({"terms": terms, "loss_mix": "add"})
        return recipe_of(tiny, None).model_copy(update={"distillation": spec})

    term = {"path": "attention", "loss": "mse", "teacher_view": "weak"}
    every = finish(trainer.distil(recipe(term | {"stride": "every", "weight": 0.8})))[1]
    each = finish(trainer.distil(recipe(*(term | {"stride": stride, "weight": 0.4} for stride in (2, 4)))))[1]
    assert every.weights == each.weights
    assert recipe(term | {"stride": "every"}).distillation.summary() == "attention at every mse"


@pytest.mark.parametrize("variant", [None, ("attention", "mse", "weak", "add"), ("regressor", "mse", "weak", "add")])
def test_student_on_a_pretrained_encoder_is_distilled_like_any_other(tiny, trainer, variant):
    recipe = recipe_of(tiny, variant)
    spec = TimmSpec(family="timm", depth=3, width=4, encoder_lr_factor=0.5)
    recipe = recipe.model_copy(update={"student": spec})
    first, second = (finish(trainer.distil(recipe))[1] for _ in range(2))
    assert first.weights == second.weights
    assert load(first.weights).keys() == build_student(spec, device="meta").state_dict().keys()


def test_lower_encoder_learning_rate_changes_its_weights_less(tiny, trainer):
    begun = build_student(TimmSpec(family="timm", depth=2, width=4), seed=0).state_dict()

    def moved(rate: float) -> float:
        spec = TimmSpec(family="timm", depth=2, width=4, encoder_lr_factor=rate)
        recipe = recipe_of(tiny, None).model_copy(update={"student": spec})
        weights = load(finish(trainer.distil(recipe, kept="last"))[1].weights)
        return float((weights["encoder.conv_stem.weight"] - begun["encoder.conv_stem.weight"]).abs().sum())

    assert moved(0.1) < moved(1.0) / 2
