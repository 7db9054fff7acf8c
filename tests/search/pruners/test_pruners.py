"""Which trials pruners stop and which they let continue."""

from __future__ import annotations

import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.config.load import load_study
from kdsearch.config.search import PrunerName, PruningConfig
from kdsearch.errors import StudyFileError
from kdsearch.search.pruners import LearningCurve, build_pruner, is_rung

EPOCHS = 12


def _curve(number, dice, *, params=100, macs=100, finished=None, epochs=EPOCHS, inherited=False):
    finished = len(dice) == epochs if finished is None else finished
    return LearningCurve(
        number=number,
        params=params,
        macs=macs,
        dice=tuple(dice),
        epochs=epochs,
        finished=finished,
        inherited=inherited,
    )


def _rising(to, epochs=EPOCHS):
    return [to * epoch / EPOCHS for epoch in range(1, epochs + 1)]


def _pruner(name, *known, **settings):
    eager = {"warmup_epochs": 2, "finished_trials": 3, "quantile": 0.8, "margin": 0.0} if name == "reach" else {}
    pruner = build_pruner(PruningConfig.model_validate({"pruner": name, **eager, **settings}))
    for curve in known:
        pruner.observe(curve)
    return pruner


EVERY = typing.get_args(PrunerName)
SIZE_FAIR = ("reach", "halving")
GOOD = [_curve(number, _rising(0.8)) for number in range(3)]


@pytest.mark.parametrize("name", EVERY)
def test_every_name_builds_a_pruner_that_never_stops_the_first_trial(name):
    pruner = _pruner(name)
    for epochs in range(1, EPOCHS):
        curve = _curve(0, _rising(0.1, epochs))
        assert pruner.stops(curve) == ""
        pruner.observe(curve)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "none"])
def test_hopeless_trial_is_stopped_after_the_warm_up_and_not_before(name):
    pruner = _pruner(name, *(_curve(number, _rising(0.8 + 0.01 * number)) for number in range(6)), warmup_epochs=4)
    stopped_at = []
    for number in range(90, 99):  # several, because Hyperband's last bracket stops none
        for epochs in range(1, EPOCHS):
            curve = _curve(number, [0.01] * epochs)
            if pruner.stops(curve):
                stopped_at.append(epochs)
                break
            pruner.observe(curve)
    assert stopped_at
    assert min(stopped_at) >= 4


@pytest.mark.parametrize("name", SIZE_FAIR)
def test_nothing_is_stopped_before_enough_trials_have_finished(name):
    bad = _curve(99, [0.01] * 3)
    assert _pruner(name, *GOOD, finished_trials=4).stops(bad) == ""
    assert _pruner(name, *GOOD, finished_trials=3).stops(bad) != ""


@pytest.mark.parametrize("name", SIZE_FAIR)
def test_trial_is_never_stopped_because_larger_or_costlier_ones_are_better(name):
    pruner = _pruner(name, *GOOD)
    assert pruner.stops(_curve(99, [0.01] * 3, params=99)) == ""
    assert pruner.stops(_curve(99, [0.01] * 3, macs=99)) == ""
    assert pruner.stops(_curve(99, [0.01] * 3, params=1000, macs=1000)) != ""


@pytest.mark.parametrize("name", SIZE_FAIR)
def test_best_trial_up_to_its_size_is_never_stopped(name):
    pruner = _pruner(name, *GOOD)
    for epochs in range(1, EPOCHS):
        assert pruner.stops(_curve(99, _rising(0.9, epochs))) == ""


def test_reach_adds_what_finished_trials_gained_after_the_same_epoch():
    late = [_curve(number, [0.1] * 6 + [0.7] * 6) for number in range(4)]
    rival = _curve(9, [0.6] * EPOCHS)
    pruner = _pruner("reach", *late, rival)
    assert pruner.stops(_curve(99, [0.1] * 4)) == "", "it may still rise late, as the others did"
    reason = pruner.stops(_curve(99, [0.1] * 4 + [0.05] * 4))
    assert reason == "its expected 10.0 % Dice is 60.0 points below the 70.0 % of trial 0, which is at most as large"


def test_reach_compares_trainings_by_fraction_of_epochs():
    short = [_curve(number, [0.1, 0.1, 0.7, 0.7], epochs=4) for number in range(4)]
    pruner = _pruner("reach", *short)
    assert pruner.stops(_curve(99, [0.1] * 6)) == ""
    assert pruner.stops(_curve(99, [0.1] * 9)) != ""


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=EPOCHS, max_size=EPOCHS), min_size=4, max_size=8),
    st.lists(st.floats(0, 1), min_size=3, max_size=EPOCHS - 1),
)
def test_a_higher_quantile_never_stops_what_a_lower_one_lets_continue(curves, curve):
    known = [_curve(number, dice) for number, dice in enumerate(curves)]
    verdicts = [bool(_pruner("reach", *known, quantile=q).stops(_curve(99, curve))) for q in (0.2, 0.5, 0.9)]
    assert verdicts == sorted(verdicts, reverse=True)


@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0, 1)), min_size=6, max_size=12), st.integers(0, 5))
def test_halving_keeps_front_members_at_a_rung_with_at_most_two_rivals(others, index):
    rung = 3
    known = [_curve(n, [dice] * EPOCHS, params=size, macs=size) for n, (size, dice) in enumerate(others)]
    me = known[index]
    smaller_better = [o for o in known if o is not me and o.no_larger_than(me) and o.dice[0] >= me.dice[0]]
    if not smaller_better:
        curve = _curve(me.number, me.dice[:rung], params=me.params, macs=me.macs)
        reason = _pruner("halving", *known).stops(curve)
        rivals = sum(o.no_larger_than(me) for o in known)
        assert reason == "" or rivals > 2


def test_rungs_double_from_the_first():
    assert [epoch for epoch in range(1, 30) if is_rung(epoch, first=3)] == [3, 6, 12, 24]


def test_median_pruner_agrees_with_optuna():
    import optuna

    rng = np.random.default_rng(0)
    curves = [list(rng.random(EPOCHS)) for _ in range(8)]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(3, 2))
    pruner = _pruner("median")
    for number, curve in enumerate(curves):
        trial = study.ask()
        for epochs in range(1, EPOCHS + 1):
            trial.report(curve[epochs - 1], epochs)
            expected = trial.should_prune()
            assert bool(pruner.stops(_curve(number, curve[:epochs], finished=False))) == expected
            if expected:
                break
        study.tell(trial, max(curve)) if not expected else study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        if not expected:
            pruner.observe(_curve(number, curve))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("pruning: {pruner: median}", r"Optuna's median needs objectives: \[dice\], got \['dice', 'params', 'macs'\]"),
        (
            "objectives: [dice], deterministic: true, pruning: {pruner: hyperband}",
            "hyperband depends on which trial is faster, so it cannot be deterministic; use reach",
        ),
        ("pruning: {pruner: reech}", "must be one of none, reach, halving.*did you mean 'reach'"),
    ],
)
def test_unusable_pruner_settings_are_refused(study_file, search, message):
    with pytest.raises(StudyFileError, match=message):
        load_study(study_file(f"name: a\nsearch: {{{search}}}\n"))


@pytest.mark.parametrize("warmup", [1, 3, 5])
@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("none", "hyperband")])
def test_warm_up_has_the_same_meaning_for_every_pruner(name, warmup):
    pruner = _pruner(name, *(_curve(number, _rising(0.8 + 0.01 * number)) for number in range(6)), warmup_epochs=warmup)
    stopped_at = next(epochs for epochs in range(1, EPOCHS) if pruner.stops(_curve(90, [0.01] * epochs)))
    assert stopped_at == warmup + 1


def test_reach_is_patient_by_default():
    config = PruningConfig(pruner="reach")
    assert (config.warmup_epochs, config.finished_trials, config.quantile, config.margin) == (8, 10, 0.95, 0.03)
    assert PruningConfig(pruner="reach", warmup_epochs=1).warmup_epochs == 1
    assert PruningConfig(pruner="halving").warmup_epochs == 2


def test_margin_keeps_a_trial_whose_reach_is_slightly_too_low():
    known = [_curve(number, _rising(0.8)) for number in range(3)]
    behind = _curve(9, [0.12, 0.19, 0.19, 0.19])
    assert _pruner("reach", *known, margin=0.0, quantile=0.0).stops(behind)
    assert not _pruner("reach", *known, margin=0.2, quantile=0.0).stops(behind)


@pytest.mark.parametrize("name", SIZE_FAIR)
@pytest.mark.parametrize("inherited", [False, True])
def test_trial_is_compared_only_with_trials_of_the_same_kind_of_start(name, inherited):
    strong = [_curve(number, _rising(0.9), inherited=inherited) for number in range(4)]
    pruner = _pruner(name, *strong)
    weak = [0.01 * epoch for epoch in range(1, 4)]
    assert pruner.stops(_curve(9, weak, inherited=inherited))
    assert not pruner.stops(_curve(9, weak, inherited=not inherited))
