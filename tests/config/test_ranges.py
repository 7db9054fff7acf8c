"""Search ranges: how many values they hold, and which."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kdsearch.config.load import load_study
from kdsearch.config.ranges import Choice, FloatRange, IntRange, count_of, extremes_of, value_at, values_of
from kdsearch.config.space import dimensions, size_of
from kdsearch.errors import StudyFileError


def _float(low, high, step):
    return FloatRange[float].model_validate({"float": (low, high), "step": step})


@pytest.mark.parametrize(
    ("value", "values"),
    [
        (5, [5]),
        (Choice(choice=("b", "a")), ["b", "a"]),
        (IntRange[int].model_validate({"int": (2, 9), "step": 3}), [2, 5, 8]),
        (_float(0.1, 0.3, 0.1), [0.1, 0.2, 0.3]),
        (_float(0.1, 0.35, 0.1), [0.1, 0.2, 0.3]),
        (_float(0.5, 0.6, 1.0), [0.5]),
    ],
)
def test_values_are_counted_and_listed(value, values):
    assert values_of(value) == values
    assert count_of(value) == len(values)
    assert value_at(value, len(values) - 1) == values[-1]
    assert extremes_of(value) == (values if isinstance(value, Choice) else list(dict.fromkeys((values[0], values[-1]))))


def test_continuous_range_has_no_count():
    value = FloatRange[float].model_validate({"float": (0.0, 1.0)})
    assert (count_of(value), values_of(value)) == (None, None)
    assert extremes_of(value) == [0.0, 1.0]


@pytest.mark.parametrize(("low", "high", "step"), [(0.0, 1e300, 1e-300), (0.0, 1.0, 1e-9), (1e9, 1e9 + 1, 1e-3)])
def test_step_that_floating_point_numbers_cannot_follow_is_refused(low, high, step):
    with pytest.raises(ValidationError, match="is too small"):
        _float(low, high, step)


def test_large_space_is_counted_and_not_listed(study_file):
    study = load_study(
        study_file("name: a\ntraining: {weight_decay: {float: [0, 1], step: 1e-7}}\nstudent: {width: 4}")
    )
    assert size_of(study) == 10_000_001


def test_step_that_is_too_fine_is_refused_with_its_place_and_a_remedy(study_file):
    text = "name: a\ntraining:\n  weight_decay: {float: [0, 1], step: 1e-9}\n"
    with pytest.raises(StudyFileError, match=r"3: training.weight_decay: step 1e-09 is too small .* remove step"):
        load_study(study_file(text))


@pytest.mark.parametrize("weights", ["none", "bundled"])
def test_pretrained_students_may_have_ranges(study_file, weights):
    text = f"""name: a
student:
  family: timm
  weights: {weights}
  encoder: {{choice: [tf_efficientnet_lite0]}}
  depth: {{int: [2, 4]}}
  encoder_lr_factor: {{float: [0.1, 1]}}
"""
    assert set(dimensions(load_study(study_file(text)))) == {
        "student.encoder",
        "student.depth",
        "student.encoder_lr_factor",
    }
