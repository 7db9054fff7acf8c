"""The search space: conditions, size, enumeration, corners."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from kdsearch.config.load import load_study
from kdsearch.config.networks import UNetSpec
from kdsearch.config.ranges import Choice, FloatRange, IntRange, space_of, values_of
from kdsearch.config.space import dimensions, extreme_students, size_of
from kdsearch.config.training import AugmentationSpec, TrainingSpec
from kdsearch.errors import StudyFileError
from kdsearch.search.recipes import choose, enumerate_choices
from kdsearch.trials.recipe import dump_for_digest, dump_recipe, read_recipe

PAPER = """
name: grid
distillation:
  path: {choice: [none, logits, attention, regressor]}
  loss: {choice: [mse, kld]}
  teacher_view: {choice: [same, weak]}
search: {sampler: grid}
"""


def test_paper_s_grid_is_twelve_variants_and_a_baseline(study_file):
    study = load_study(study_file(PAPER))
    recipes = [choose(study, lambda name, _, c=c: c[name], seed=0) for c in enumerate_choices(study)]
    assert size_of(study) == len(recipes) == 13
    assert len({recipe.model_dump_json() for recipe in recipes}) == 13
    assert sum(recipe.distillation is None for recipe in recipes) == 1


def test_temperature_exists_only_for_logits_compared_by_kld(study_file):
    study = load_study(study_file(PAPER))
    for choices in enumerate_choices(study):
        recipe = choose(study, lambda name, _, c=choices: c[name], seed=0)
        if recipe.distillation is not None:
            (term,) = recipe.distillation.terms
            softened = (term.path, term.loss) == ("logits", "kld")
            assert (getattr(term, "temperature", None) is None) == (not softened)


def test_boundary_and_temperature_are_set_only_where_they_have_an_effect(study_file):
    text = (
        "name: a\ndistillation: {path: {choice: [logits, regressor]}, boundary: {choice: [0, 2.5]}, temperature: 4,\n"
        "  loss: {choice: [kld, cwd]}}\n"
    )
    study = load_study(study_file(text))
    recipes = [choose(study, lambda name, _, c=c: c[name], seed=0) for c in enumerate_choices(study)]
    terms = [recipe.distillation.terms[0] for recipe in recipes]
    found = [(t.path, t.loss, getattr(t, "temperature", None), getattr(t, "boundary", None)) for t in terms]
    assert sorted(found, key=str) == [
        ("logits", "cwd", 4.0, None),
        ("logits", "kld", 4.0, 0.0),
        ("logits", "kld", 4.0, 2.5),
        ("regressor", "cwd", 4.0, None),
        ("regressor", "kld", None, None),
    ]


def test_each_path_is_given_the_losses_that_it_can_be_compared_by(study_file):
    text = "name: a\ndistillation: {path: {choice: [none, logits, attention]}, loss: {choice: [mse, kld, dml]}}\n"
    study = load_study(study_file(text))
    recipes = [choose(study, lambda name, _, c=c: c[name], seed=0) for c in enumerate_choices(study)]
    found = [(term.path, term.loss) for r in recipes if r.distillation for term in r.distillation.terms]
    assert sorted(found) == [
        ("attention", "kld"),
        ("attention", "mse"),
        *(("logits", x) for x in ("dml", "kld", "mse")),
    ]
    assert size_of(study) == 6


@pytest.mark.parametrize(
    "text",
    [
        "student: {width: {int: [4, 8]}, depth: {choice: [2, 3]}}",
        "distillation: {path: {choice: [none, logits]}, temperature: {choice: [1, 2, 4]}, loss: {choice: [mse, kld]}}",
        "distillation: {path: {choice: [none, logits]}, loss: {choice: [dml, cwd]}, boundary: {choice: [0, 3]}}",
        "distillation: {weight: {float: [0.1, 0.9], step: 0.2}}\ntraining: {augmentation: {noise: {choice: [0, 0.1]}}}",
        "seed: 1",
    ],
)
def test_size_is_the_number_of_different_recipes(study_file, text):
    study = load_study(study_file(f"name: a\n{text}\n"))
    assert size_of(study) == len({tuple(choices.items()) for choices in enumerate_choices(study)})


def test_continuous_space_has_no_size(study_file):
    study = load_study(study_file("name: a\ntraining: {learning_rate: {float: [1e-4, 1e-2], log: true}}\n"))
    assert size_of(study) is None
    assert list(dimensions(study)) == ["training.learning_rate"]


def test_corners_hold_smallest_and_largest(study_file):
    study = load_study(
        study_file("name: a\nstudent: {width: {int: [4, 32]}, depth: {int: [2, 4]}, convs_per_stage: {int: [1, 2]}}\n")
    )
    corners = list(extreme_students(study))
    assert len(corners) == 8
    assert UNetSpec(width=4, depth=2, convs_per_stage=1, conv="standard") in corners
    assert UNetSpec(width=32, depth=4, convs_per_stage=2, conv="standard") in corners


def test_corners_keep_to_the_step(study_file):
    study = load_study(study_file("name: a\nstudent: {width: {int: [4, 10], step: 4}}\n"))
    assert [spec.width for spec in extreme_students(study)] == [4, 8]


def test_float_range_with_step_reaches_its_upper_bound():
    values = values_of(FloatRange[float].model_validate_json('{"float": [0.1, 0.5], "step": 0.1}'))
    assert values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_int_range_with_step_stops_at_or_below_its_upper_bound():
    assert values_of(IntRange[int].model_validate_json('{"int": [4, 9], "step": 2}')) == [4, 6, 8]
    assert values_of(Choice[int](choice=(3, 1))) == [3, 1]


@pytest.mark.parametrize("spec", [UNetSpec, TrainingSpec, AugmentationSpec])
def test_space_has_the_spec_s_settings_defaults_and_words(spec):
    space = space_of(spec)
    assert space().model_dump() == spec().model_dump()
    for name, field in spec.model_fields.items():
        assert space.model_fields[name].description == field.description
        assert field.description


def test_space_takes_ranges_of_what_the_spec_takes_values_of():
    space = space_of(TrainingSpec)
    searched = {
        "learning_rate": {"float": [1e-3, 1e-2], "log": True},
        "epochs": {"int": [3, 9]},
        "optimizer": {"choice": ["adam", "sgd"]},
        "gradient_clip": {"choice": [0.5, 1.0]},
        "augmentation": {"flip": {"float": [0.0, 0.5]}},
    }
    assert space.model_validate_json(json.dumps(searched)).epochs == IntRange[int](int=(3, 9))
    for wrong in ({"epochs": {"int": [0, 9]}}, {"optimizer": {"choice": ["adm"]}}, {"gradient_clip": {"choice": [0]}}):
        with pytest.raises(ValidationError, match="greater than|adam"):
            space.model_validate_json(json.dumps(wrong))
    with pytest.raises(ValidationError, match="epochs"):
        TrainingSpec.model_validate_json(json.dumps({"epochs": {"int": [3, 9]}}))


def test_fixed_settings_take_no_range():
    with pytest.raises(ValidationError, match="monitor"):
        space_of(TrainingSpec).model_validate_json('{"monitor": {"choice": ["loss", "dice"]}}')


def test_recipe_survives_json(study_file):
    study = load_study(study_file(PAPER))
    for choices in enumerate_choices(study):
        recipe = choose(study, lambda name, _, c=choices: c[name], seed=7)
        assert read_recipe(dump_recipe(recipe)) == recipe


def test_settings_leave_out_what_does_not_apply(study_file):
    study = load_study(study_file("name: a\ndistillation: {path: none}\n"))
    settings = choose(study, lambda name, _: name, seed=0).settings()
    assert settings["distillation.path"] == "none"
    assert not any(name in settings for name in ("distillation.temperature", "distillation.weight"))


def test_each_path_has_a_usual_loss(study_file):
    study = load_study(study_file("name: a\ndistillation: {path: {choice: [none, logits, attention, regressor]}}\n"))
    recipes = [choose(study, lambda name, _, c=c: c[name], seed=0) for c in enumerate_choices(study)]
    found = {term.path: term.loss for r in recipes if r.distillation for term in r.distillation.terms}
    assert found == {"logits": "dml", "attention": "mse", "regressor": "mse"}
    assert size_of(study) == 4


TERMS = """
name: a
distillation:
  - {path: logits, loss: kld, weight: {choice: [0.5, 1.0]}}
  - {path: attention, loss: mse, weight: 0.2, teacher_view: {choice: [weak, same]}}
"""


def test_list_of_terms_is_searched_term_by_term(study_file):
    study = load_study(study_file(TERMS))
    assert set(dimensions(study)) == {"distillation.0.weight", "distillation.1.teacher_view"}
    recipes = [choose(study, lambda name, _, c=c: c[name], seed=0) for c in enumerate_choices(study)]
    assert len(recipes) == size_of(study) == 4
    assert recipes[0].path == "logits+attention"
    assert {recipe.distillation.terms[0].weight for recipe in recipes} == {0.5, 1.0}
    assert recipes[0].distillation.terms[0].temperature == 2.0
    settings = recipes[0].settings()
    assert settings["distillation.path"] == "logits+attention"
    assert settings["distillation.1.loss"] == "mse"
    assert read_recipe(dump_recipe(recipes[0])) == recipes[0]


def test_one_term_is_recorded_as_in_the_short_form(study_file):
    study = load_study(study_file("name: a\ndistillation: {path: logits, loss: kld, weight: 0.5}\n"))
    settings = choose(study, lambda name, _: name, seed=0).settings()
    assert {k: v for k, v in settings.items() if k.startswith("distillation.")} == {
        "distillation.path": "logits",
        "distillation.loss": "kld",
        "distillation.weight": "0.5",
        "distillation.teacher_view": "weak",
        "distillation.temperature": "2",
        "distillation.loss_mix": "add",
    }


def test_recipe_of_schema_1_has_one_term_now(study_file):
    study = load_study(study_file("name: a\ndistillation: {path: logits, loss: kld, weight: 0.5}\n"))
    recipe = choose(study, lambda name, _: name, seed=0)
    old = json.loads(dump_for_digest(recipe))
    (term,) = old["distillation"]["terms"]
    old |= {"schema": 1, "distillation": {"path": term.pop("on"), "balance": "added", **term}}  # old name
    assert read_recipe(json.dumps(old)) == recipe


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ("[{path: attention, loss: dml}]", r"distillation\[0\].path: must be .*logits"),
        (
            "[{path: attention, loss: kld, temperature: 3}]",
            r"distillation\[0\]: temperature applies only",
        ),
        ("[{path: logits, loss: mse, wieght: 3}]", r"distillation\[0\].wieght: unknown key; .*did you mean 'weight'"),
        ("[{path: logits, loss: kl}]", r"distillation\[0\]: must be one of mse, kld, dml, cwd, .*; got 'kl'"),
        ("[{path: hidden, loss: mse, stride: every}]", r"distillation\[0\]: stride: every applies only to attention"),
        ("[{path: attention, loss: pkd}]", r"distillation\[0\].path: must be .*hidden.*regressor"),
        ("[{path: logits, loss: cwd, stride: 4}]", r"distillation\[0\]: stride applies only to hidden"),
        ("[{path: attention, loss: mse, boundary: 1}]", r"distillation\[0\]: boundary applies only to path logits"),
        ("[{path: {choice: [logits, attention]}, loss: mse}]", r"distillation\[0\].path"),
        ("[]", "distillation"),
    ],
)
def test_wrong_terms_are_refused_by_place_and_key(study_file, terms, message):
    with pytest.raises(StudyFileError, match=message):
        load_study(study_file(f"name: a\ndistillation: {terms}\n"))
