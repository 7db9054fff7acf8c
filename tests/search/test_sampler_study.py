"""What samplers see of a study."""

from __future__ import annotations

import math
import warnings

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.config.load import load_study
from kdsearch.config.networks import UNetSpec
from kdsearch.config.ranges import Choice, FloatRange, IntRange, count_of, value_at
from kdsearch.config.task import square
from kdsearch.files.home import storage_url
from kdsearch.models.costs import cost_of, how_far_over
from kdsearch.search.sampling import SamplerStudy, random_value, usual_value, van_der_corput
from kdsearch.search.store import open_store
from tests.front.students import scores
from tests.tiny import TINY

WIDE = TINY.replace("{int: [2, 6]}", "{int: [2, 64], log: true}").replace(
    "startup_trials: 2", "startup_trials: 8, limits: {params: 100k}"
)


def _stored(home):
    return optuna.load_study(study_name="tiny", storage=storage_url(home, "tiny", None))


def _finish(store, proposal, *, size=32):
    cost = cost_of(proposal.recipe.student, square(size))
    store.finish(proposal.number, scores(dice=0.5, params=cost.params, macs=cost.macs), ())
    return cost


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_first_trials_span_the_sizes_within_the_limits(study_file, tmp_path, sampler):
    study = load_study(study_file(WIDE.replace("trials: 3", f"trials: 30, sampler: {sampler}")))
    store = open_store(study, tmp_path, create=True)
    params = [_finish(store, store.ask()).params for _ in range(8)]
    assert max(params) <= 100_000
    halves = np.histogram(np.log10(params), bins=np.linspace(math.log10(min(params)), 5, 5))[0]
    assert (halves >= 1).all(), params
    assert max(params[:4]) > 8 * min(params[:4])


def test_first_trials_are_one_student_per_decade_with_usual_settings(study_file, tmp_path):
    rates = "training: {epochs: 2, learning_rate: {float: [1e-3, 1e-1], log: true}}"
    store = open_store(load_study(study_file(WIDE.replace("training: {epochs: 2}", rates))), tmp_path, create=True)
    recipes = [store.ask().recipe for _ in range(8)]
    usual = [recipe.path == "none" and recipe.training.learning_rate == pytest.approx(1e-2) for recipe in recipes]
    low = math.log10(cost_of(UNetSpec(width=2, depth=2, convs_per_stage=1), square(32)).params)
    decades = round(5 - low)
    assert usual == [True] * decades + [False] * (8 - decades)
    for place, recipe in enumerate(recipes[:decades]):
        wanted = low + van_der_corput(place + 1) * (5 - low)
        assert abs(math.log10(cost_of(recipe.student, square(32)).params) - wanted) < 0.2


def test_sizes_are_logarithmic_and_rejected_recipes_violate_a_constraint(study_file, tmp_path):
    study = load_study(study_file(WIDE))
    store = open_store(study, tmp_path, create=True)
    store.finish(store.ask().number, scores(dice=0.5, params=1000, macs=100), ())
    store.reject(store.ask().number, "too large", violation=0.7)
    stored = _stored(tmp_path)
    finished, rejected = SamplerStudy(study, stored).trials
    assert finished.values == [0.5, pytest.approx(3), pytest.approx(2)]
    assert rejected.constraints == {"limits": 0.7}
    stored = stored.trials
    assert stored[0].values == [0.5, 1000, 100]
    assert stored[1].state.name == "FAIL"


def test_rejected_recipes_do_not_count_as_startup_trials(study_file, tmp_path):
    study = load_study(study_file(WIDE.replace("trials: 3", "trials: 30")))
    store = open_store(study, tmp_path, create=True)
    for _ in range(12):
        store.reject(store.ask().number, "too large", violation=0.1)
    sizes = [cost_of(store.ask().recipe.student, square(32)).params for _ in range(4)]
    assert max(sizes) <= 100_000, "later proposals must be within the limits"


def test_low_specificity_violates_the_constraint(study_file, tmp_path):
    import dataclasses

    text = WIDE.replace("limits: {params: 100k}", "limits: {min_specificity: 0.8}")
    study = load_study(study_file(text))
    store = open_store(study, tmp_path, create=True)
    made = scores(dice=0.5, params=1000, macs=100)
    for share in (0.5, 0.9):
        overlap = dataclasses.replace(made.overlap, specificity=share, empty_images=10)
        store.finish(store.ask().number, dataclasses.replace(made, overlap=overlap), ())
    violated, kept = (trial.constraints["specificity"] for trial in SamplerStudy(study, _stored(tmp_path)).trials)
    assert (violated, kept) == (pytest.approx(0.3), pytest.approx(-0.1))


def test_limit_violation_is_logarithmic(study_file):
    study = load_study(study_file(WIDE))
    big = type("Cost", (), {"params": 1_000_000, "macs": 1})()
    assert how_far_over(big, study.search.limits) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "usual"),
    [
        (Choice(choice=("b", "a")), "b"),
        (IntRange[int].model_validate({"int": (2, 32), "log": True}), 8),
        (IntRange[int].model_validate({"int": (2, 9)}), 6),
        (IntRange[int].model_validate({"int": (2, 8), "step": 3}), 5),
        (FloatRange[float].model_validate({"float": (0.1, 10.0), "log": True}), 1.0),
        (FloatRange[float].model_validate({"float": (0.2, 0.8)}), 0.5),
        (FloatRange[float].model_validate({"float": (0.1, 0.5), "step": 0.1}), 0.3),
    ],
)
def test_usual_value_is_the_first_of_a_choice_and_the_middle_of_a_range(value, usual):
    assert usual_value(value) == (usual if isinstance(usual, str) else pytest.approx(usual))


def test_van_der_corput_by_hand():
    assert [van_der_corput(index) for index in range(1, 8)] == [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]


RANGES = [
    Choice(choice=("a", "b")),
    IntRange[int].model_validate({"int": (2, 9), "log": True}),
    IntRange[int].model_validate({"int": (2, 8), "step": 3}),
    FloatRange[float].model_validate({"float": (0.1, 10.0), "log": True}),
    FloatRange[float].model_validate({"float": (0.1, 0.9)}),
    FloatRange[float].model_validate({"float": (0.1, 0.5), "step": 0.1}),
]


@pytest.mark.parametrize("value", RANGES)
@given(seed=st.integers(0, 10_000))
def test_optuna_accepts_random_values(value, seed):
    from kdsearch.search.sampling import suggest

    drawn = random_value(value, np.random.default_rng(seed))
    study = optuna.create_study()
    study.enqueue_trial({"x": drawn})
    got = suggest(study.ask(), "x", value)
    assert got == (drawn if isinstance(drawn, str) else pytest.approx(drawn))


ROUND = st.integers(1, 100).map(lambda number: number / 100)
"""Steps and bounds as people write them."""


@given(low=ROUND, width=ROUND, step=ROUND)
def test_optuna_accepts_every_value_of_a_stepped_range(low, width, step):
    value = FloatRange[float].model_validate({"float": (low, round(low + width, 2)), "step": step})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the range is not a whole number of steps
        distribution = optuna.distributions.FloatDistribution(low, value.bounds[1], step=step)
    values = [value_at(value, index) for index in range(count_of(value))]
    assert all(distribution._contains(one) for one in [*values, usual_value(value)]), values
    assert len(values) == round((distribution.high - low) / step) + 1


def test_grid_includes_the_last_value_despite_rounding(study_file, tmp_path):
    """0.1 + 2 * 0.1 is 0.30000000000000004."""
    text = TINY.replace("path: {choice: [none, logits]}", "weight: {float: [0.1, 0.3], step: 0.1}")
    text = text.replace("{int: [2, 6]}", "4").replace("trials: 3", "trials: 9, sampler: grid")
    store = open_store(load_study(study_file(text)), tmp_path, create=True)
    weights = []
    while (proposal := store.ask()) is not None:
        weights.append(proposal.recipe.distillation.terms[0].weight)
        _finish(store, proposal)
    assert weights == [0.1, 0.2, 0.3]
