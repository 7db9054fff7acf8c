"""Which weights students start with."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from kdsearch.campaign.events import TrialEnded
from kdsearch.config.load import load_study
from kdsearch.config.networks import TimmSpec, UNetSpec
from kdsearch.config.search import SearchConfig
from kdsearch.config.task import square
from kdsearch.errors import SearchError, StudyFileError
from kdsearch.files.home import weights_path
from kdsearch.models.costs import cost_of
from kdsearch.search.run import run_study
from kdsearch.search.sampling import is_wider, with_donor
from kdsearch.tracking.location import Tracking
from kdsearch.trials.recipe import dump_recipe, read_recipe
from kdsearch.trials.record import job_of_trial
from tests.front.students import student as made
from tests.search.fake_driver import fill, finish_trial
from tests.search.setups import finish
from tests.tiny import TINY

INHERIT = SearchConfig(start="inherit")
INHERITING = TINY.replace("trials: 3", "trials: 12, start: inherit").replace(
    "training: {epochs: 2}", "training: {epochs: 3}"
)


def _student(number, width, dice, *, path="logits"):
    one = made(number, dice, 0, path=path)
    spec = one.recipe.student.model_copy(update={"width": width})
    training = one.recipe.training.model_copy(update={"epochs": 24})
    recipe = one.recipe.model_copy(update={"student": spec, "training": training})
    scores = dataclasses.replace(one.scores, params=cost_of(spec, square(64)).params)
    return dataclasses.replace(one, recipe=recipe, scores=scores)


def _recipe(width, *, path="logits"):
    return _student(99, width, 0.0, path=path).recipe


def test_best_wider_student_of_the_same_kind_is_the_donor():
    students = [
        _student(0, 5, 0.5),
        _student(1, 6, 0.7),
        _student(2, 6, 0.7),
        _student(3, 3, 0.9),
        _student(4, 24, 0.9),
        _student(5, 6, 0.9, path="none"),
    ]
    recipe = with_donor(_recipe(4), students, INHERIT)
    assert recipe.start.donor == 1, "not a narrower student, a much wider one or one without a teacher"
    assert (recipe.start.scratch_epochs, recipe.training.epochs) == (24, 16)
    assert recipe.from_scratch == _recipe(4)
    assert with_donor(_recipe(4, path="none"), students, INHERIT).start.donor == 5


def _unet(width=4, **changes):
    return UNetSpec(**{"width": width, "depth": 2, "growth": 1.5} | changes)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        (_unet(8), _unet(4), True),
        (_unet(4, growth=2), _unet(4), True),
        (_unet(4), _unet(4), False),
        (_unet(4), _unet(8), False),
        (_unet(6, growth=1), _unet(4, growth=2), False),
        (_unet(8, depth=3), _unet(4), False),
        (_unet(8, convs_per_stage=1), _unet(4), False),
        (_unet(8, conv="separable"), _unet(4, conv="standard"), False),
        (TimmSpec(family="timm", weights="none"), _unet(4), False),
        (_unet(8), TimmSpec(family="timm", weights="none"), False),
    ],
)
def test_donor_has_the_same_kind_and_stages_at_least_as_wide(wide, narrow, expected):
    assert is_wider(wide, narrow) is expected


def test_student_starts_from_scratch_without_a_donor_or_if_the_study_says_so():
    assert with_donor(_recipe(4), [_student(0, 4, 0.5)], INHERIT) == _recipe(4)
    assert with_donor(_recipe(4), [_student(0, 6, 0.5)], SearchConfig()) == _recipe(4)


def test_inheriting_student_trains_for_the_configured_fraction_of_epochs():
    search = SearchConfig(start="inherit", inherit_epoch_fraction=0.5)
    assert with_donor(_recipe(4), [_student(0, 6, 0.5)], search).training.epochs == 12


def test_start_is_stored_and_shown_with_the_recipe():
    recipe = with_donor(_recipe(4), [_student(7, 6, 0.5)], INHERIT)
    assert read_recipe(dump_recipe(recipe)) == recipe
    assert recipe.settings()["start.donor"] == "7"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TINY.replace("trials: 3", "trials: 3, inherit_epoch_fraction: 0.5"),
            "has no effect with start: scratch",
        ),
        (
            TINY.replace("trials: 3", "trials: 3, start: inherit, objectives: [dice], pruning: median"),
            "start: inherit and pruning.pruner: median cannot be combined",
        ),
        (
            TINY.replace("trials: 3", "trials: 3, start: inherit").replace(
                "student: {width: {int: [2, 6]}, depth: 2, convs_per_stage: 1}",
                "student: {family: timm, weights: none}",
            ),
            "search.start: inherit needs student.family: unet, got timm",
        ),
        (
            TINY.replace("trials: 3", "trials: 3, start: inherit, sampler: grid").replace(
                "name: tiny", "name: tiny\nreplicates: 3"
            ),
            "search.start: inherit and replicates: 3 cannot be combined",
        ),
        (TINY.replace("trials: 3", "trials: 3, start: inherits"), "did you mean 'inherit'"),
    ],
)
def test_impossible_combinations_are_refused(study_file, text, message):
    with pytest.raises(StudyFileError, match=message):
        load_study(study_file(text))


def _finish_all(driver, order):
    while True:
        fill(driver)
        if not driver.jobs.executor.jobs:
            return
        finish_trial(driver, order(driver.jobs.executor.jobs))


def test_deterministic_study_takes_donors_only_from_earlier_batches(session, tmp_path):
    text = INHERITING.replace("trials: 12", "trials: 24, deterministic: true, ask_batch: 4")
    found = []
    for place, (workers, order) in enumerate([(1, min), (3, max), (8, min)]):
        driver = session(text=text, workers=workers, home=tmp_path / str(place))
        _finish_all(driver, order)
        found.append([record.recipe for record in driver.state.records])
    assert found[0] == found[1] == found[2]
    starts = [(number, recipe.start.donor) for number, recipe in enumerate(found[0]) if recipe.start is not None]
    assert starts
    assert all(donor < number // 4 * 4 for number, donor in starts)


def test_batch_completed_after_raising_trials_keeps_its_original_donors(session):
    text = INHERITING.replace("trials: 12", "trials: 48, deterministic: true, ask_batch: 12")
    for trials in (26, 48):
        driver = session(text=text.replace("trials: 48", f"trials: {trials}"), workers=8)
        _finish_all(driver, min)
    starts = [(record.number, record.recipe.start) for record in driver.state.records if record.recipe.start]
    late = [(number, start.donor) for number, start in starts if 26 <= number < 36]
    assert late
    assert all(donor < 24 for _, donor in late), "trials 24 and 25 had ended before these were drawn"


def _until_one_inherits(driver):
    """Continues until a trial with inherited weights is running; returns its job."""
    while True:
        fill(driver)
        for job in driver.jobs.executor.jobs.values():
            if job.student.start is not None:
                return job
        finish_trial(driver, min(driver.jobs.executor.jobs))


def test_job_includes_its_donor_even_after_a_kill(session):
    driver = session(text=INHERITING)
    job = _until_one_inherits(driver)
    donor = driver.state.records[job.student.start.donor]
    assert job.donor.student == donor.recipe.student
    assert job.donor.weights == b"weights"
    again = session(text=INHERITING)
    list(again.trials.recover(again.store.abandoned()))
    fill(again)
    assert job in again.jobs.executor.jobs.values()


def test_study_stops_without_a_donor_s_weights_and_resumes_once_restored(session, tmp_path):
    job = _until_one_inherits(session(text=INHERITING))
    weights = weights_path(tmp_path, "tiny", job_of_trial(job.student.start.donor))
    away = weights.rename(weights.with_suffix(".away"))
    again = session(text=INHERITING)
    with pytest.raises(SearchError, match=rf"{weights.name} cannot be read: .*restore it"):
        list(again.trials.recover(again.store.abandoned()))
    away.rename(weights)
    again = session(text=INHERITING)
    list(again.trials.recover(again.store.abandoned()))
    fill(again)
    assert job in again.jobs.executor.jobs.values()


@pytest.mark.slow
def test_interrupted_study_with_inheritance_equals_an_uninterrupted_one(study_file, tiny_home, record, tmp_path):
    text = INHERITING.replace("workers: 1", "executor: inline").replace(
        "trials: 12", "trials: 8, deterministic: true, ask_batch: 3"
    )
    records = []
    for broken in (False, True):
        home = shutil.copytree(tiny_home, tmp_path / str(broken))
        tracking = Tracking(uri=record)
        study = load_study(study_file(text))
        if broken:
            driver, ended = run_study(study, home=home, tracking=tracking), 0
            while ended < 6:
                ended += isinstance(next(driver), TrialEnded)
            driver.close()
        records.append(finish(run_study(study, home=home, tracking=tracking))[1])
    assert [record.recipe for record in records[0]] == [record.recipe for record in records[1]]
    assert [record.scores.dice for record in records[0]] == [record.scores.dice for record in records[1]]
    inherited = [record for record in records[0] if record.recipe.start is not None]
    assert inherited
    assert all(len(record.curve) == 2 for record in inherited), "two thirds of three epochs"
