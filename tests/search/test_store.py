"""The Optuna database: nothing is lost or mixed up, and the same command resumes."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from kdsearch.config.load import load_study
from kdsearch.data.dataset import DataSummary
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import TrainedTeacher
from kdsearch.errors import NotRunYetError, SearchError
from kdsearch.files.home import storage_url
from kdsearch.search.store import StudyStore, open_store, read_store
from kdsearch.trials.record import EpochReport
from kdsearch.trials.scores import Cost, dump_scores
from tests.front.students import scores
from tests.tiny import TINY

CURVE = (
    EpochReport(
        epoch=1, epochs=2, train_loss=1.0, validation_loss=float("nan"), dice=0.4, learning_rate=0.1, seconds=2.0
    ),
)


def test_told_results_are_read_back(tiny, tmp_path):
    store = open_store(tiny, tmp_path, create=True)
    first, second, third, fourth = (store.ask() for _ in range(4))
    made = scores(dice=0.7, params=10, macs=20)
    store.finish(first.number, made, CURVE)
    store.reject(second.number, "too large", violation=0.5)
    store.fail(third.number, "out of memory", CURVE)
    records = open_store(tiny, tmp_path, create=False).records()
    assert [record.outcome for record in records] == ["finished", "rejected", "failed", "running"]
    assert [record.reason for record in records] == ["", "too large", "out of memory", ""]
    assert records[0].scores == made
    assert records[0].recipe == first.recipe
    assert records[0].curve[0].dice == 0.4
    assert len(records[2].curve) == 1
    assert records[0].started < records[0].ended
    assert records[3].recipe == fourth.recipe


def test_optuna_sees_objectives_and_states(tiny, tmp_path):
    store = open_store(tiny, tmp_path, create=True)
    a, b, c = (store.ask() for _ in range(3))
    store.finish(a.number, scores(dice=0.7, params=10, macs=20), CURVE)
    store.reject(b.number, "r", violation=0.5)
    store.fail(c.number, "f")
    study = optuna.load_study(study_name="tiny", storage=storage_url(tmp_path, "tiny", None))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "FAIL"]
    assert study.trials[0].values == [0.7, 10, 20]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]


def test_running_trials_resume_under_their_numbers(tiny, tmp_path):
    store = open_store(tiny, tmp_path, create=True)
    asked = [store.ask() for _ in range(2)]
    again = open_store(tiny, tmp_path, create=False)
    assert again.abandoned() == asked
    again.finish(asked[0].number, scores(dice=0.7, params=10, macs=20), CURVE)
    assert [proposal.number for proposal in again.abandoned()] == [1]


def test_failed_ask_returns_the_same_recipe_when_retried(tiny, tmp_path, monkeypatch):
    whole = open_store(tiny, tmp_path / "whole", create=True)
    expected = [whole.ask() for _ in range(3)]
    store = open_store(tiny, tmp_path / "broken", create=True)
    real = store.storage.create_new_trial

    def unanswered(*arguments, **named):
        real(*arguments, **named)
        raise OperationalError("INSERT", {}, Exception("the connection was lost"))

    def refused(*_, **__):
        raise OperationalError("INSERT", {}, Exception("disk full"))

    for fake, proposal in zip((refused, unanswered), expected, strict=False):
        monkeypatch.setattr(store.storage, "create_new_trial", fake)
        with pytest.raises(OperationalError):
            store.ask()
        monkeypatch.setattr(store.storage, "create_new_trial", real)
        assert store.ask() == proposal
    assert open_store(tiny, tmp_path / "broken", create=True).ask() == expected[2]
    assert [record.number for record in store.records()] == [0, 1, 2]


def test_trial_added_by_another_program_is_reported(tiny, tmp_path):
    store = open_store(tiny, tmp_path, create=True)
    optuna.load_study(study_name="tiny", storage=storage_url(tmp_path, "tiny", None)).ask()
    with pytest.raises(SearchError, match="study tiny: another program added trial 0"):
        store.ask()


def test_outcome_missing_in_optuna_is_added_when_the_study_is_opened(tiny, tmp_path):
    store = open_store(tiny, tmp_path, create=True)
    made = scores(dice=0.7, params=10, macs=20)
    storage = RDBStorage(storage_url(tmp_path, "tiny", None))
    study_id = storage.get_study_id_from_name("tiny")

    def keep(number, **attributes):
        trial = storage.get_trial_id_from_study_id_trial_number(study_id, number)
        for key, value in attributes.items():
            storage.set_trial_user_attr(trial, key, value)

    for number in range(3):
        assert store.ask().number == number
    keep(0, scores=dump_scores(made), curve="[]", outcome="finished")
    keep(1, reason="slow", outcome="stopped")
    keep(2, scores=dump_scores(made))
    again = open_store(tiny, tmp_path, create=True)
    assert [proposal.number for proposal in again.abandoned()] == [2]
    assert [record.outcome for record in again.records()] == ["finished", "stopped", "running"]
    assert again.records()[0].scores == made


def test_stopped_trial_keeps_curve_and_cost_without_intermediate_values(tiny, tmp_path):
    store = open_store(tiny, tmp_path, create=True)
    store.lose(store.ask().number, ("signal 9",))
    record = store.stop(0, "why", curve=CURVE, cost=Cost(params=3, macs=4))
    assert (record.outcome, record.reason, record.cost) == ("stopped", "why", Cost(params=3, macs=4))
    assert record.curve[0].dice == CURVE[0].dice
    assert record.lost == ("signal 9",)
    trial = optuna.load_study(study_name="tiny", storage=storage_url(tmp_path, "tiny", None)).trials[0]
    assert trial.state.name == "PRUNED"
    assert trial.intermediate_values == {}


def test_telling_twice_changes_nothing(tiny, tmp_path):
    store = open_store(tiny, tmp_path, create=True)
    store.ask()
    made = scores(dice=0.7, params=10, macs=20)
    assert store.finish(0, made, CURVE).ended == store.finish(0, made, CURVE).ended


def test_sampler_does_not_repeat_itself_after_a_restart(tiny, tmp_path):
    widths = []
    for _ in range(4):
        store = open_store(tiny.model_copy(update={"student": tiny.student}), tmp_path, create=True)
        proposal = store.ask()
        widths.append((proposal.recipe.student.width, proposal.recipe.path))
        store.finish(proposal.number, scores(dice=0.5, params=10, macs=20), CURVE)
    assert len(set(widths)) > 1


def test_recipes_share_the_study_s_seed(tiny, tmp_path):
    store = open_store(tiny.model_copy(update={"seed": 7}), tmp_path, create=True)
    assert {store.ask().recipe.seed for _ in range(4)} == {7}


def test_recipes_get_distinct_seeds_if_the_study_varies_them(tiny, tmp_path):
    tiny = tiny.model_copy(update={"search": tiny.search.model_copy(update={"seed_per_trial": True})})
    store = open_store(tiny, tmp_path, create=True)
    assert len({store.ask().recipe.seed for _ in range(4)}) == 4


def test_changed_settings_are_refused_by_name(tiny, study_file, tmp_path):
    first = open_store(tiny, tmp_path, create=True).id
    changed = load_study(study_file(TINY.replace("epochs: 2", "epochs: 3")))
    assert open_store(changed, tmp_path, create=True).id != first, "a study without trials can lose nothing"
    open_store(tiny, tmp_path, create=True).ask()
    with pytest.raises(
        SearchError,
        match=r"already has trials, made with other settings:\n  training.epochs: was 2, is 3\n",
    ):
        open_store(changed, tmp_path, create=True)
    with pytest.raises(SearchError, match="made with other settings"):
        open_store(changed, tmp_path, create=False)
    more = load_study(study_file(TINY.replace("trials: 3", "trials: 9")))
    assert len(open_store(more, tmp_path, create=True).records()) == 1


def test_changed_settings_are_logged_once_and_trials_stay_readable(study_file, tmp_path, caplog):
    """A default may have changed since the release that ran the study."""
    study = load_study(study_file(TINY.replace("name: tiny", "name: read")))
    open_store(study, tmp_path, create=True).ask()
    text = TINY.replace("name: tiny", "name: read").replace("epochs: 2", "epochs: 3")
    changed = load_study(study_file(text.replace("trials: 3", "trials: 3, objectives: [dice, params]")))
    for _ in range(2):
        assert len(read_store(changed, tmp_path).records()) == 1
    assert caplog.text.count("training.epochs: was 2, is 3") == 1
    with pytest.raises(NotRunYetError, match="has not been run yet"):
        read_store(changed.model_copy(update={"name": "another"}), tmp_path)


def _summary(split):
    return DataSummary(fingerprint="f", split=split, sources=("s",), images=9, train=5, validation=2, test=2)


def _teacher(tiny, folder):
    made = scores(dice=0.9, params=5, macs=6)
    return TrainedTeacher(folder=Path(folder), recipe=TeacherRecipe.of(tiny), scores=made, curve=CURVE)


def test_changed_data_or_teacher_is_refused(tiny, tmp_path):
    store = open_store(tiny, tmp_path, create=True)
    assert (store.teacher(), store.bound().teacher_curve, store.data()) == (None, (), None)
    teacher = _teacher(tiny, "t")
    store.bind(data=_summary("before any trial"), teacher=teacher)
    store.bind(data=_summary("abc"), teacher=teacher)
    store.ask()
    store.bind(data=_summary("abc"), teacher=teacher)
    assert store.teacher() == teacher.scores
    assert store.bound().teacher_curve[0].dice == CURVE[0].dice
    assert store.data() == _summary("abc")
    with pytest.raises(SearchError, match=r"the images or their split have changed .* \(was abc, now xyz\)"):
        store.bind(data=_summary("xyz"), teacher=teacher)
    with pytest.raises(SearchError, match=r"the teacher or its weights have changed .* \(was t, now u\)"):
        store.bind(data=_summary("abc"), teacher=_teacher(tiny, "u"))


def test_opening_a_study_that_was_never_run_fails_and_creates_nothing(tiny, tmp_path):
    with pytest.raises(SearchError, match="study tiny has not been run yet"):
        open_store(tiny, tmp_path, create=False)
    assert not list(tmp_path.glob("studies/*"))


@pytest.mark.parametrize(
    "url", ["nonsense", "nodb://x/y", "sqlite:////proc/no/such.db", "postgresql+psycopg://localhost:1/x"]
)
def test_unreachable_database_is_reported(tiny, tmp_path, url):
    with pytest.raises(SearchError, match="study tiny: cannot open its Optuna database"):
        open_store(tiny.model_copy(update={"storage": url}), tmp_path, create=True)


GRID = """
name: grid
student: {width: {choice: [4, 5]}, depth: 2, convs_per_stage: 1}
distillation: {path: {choice: [none, logits]}, loss: {choice: [mse, kld]}}
search: {sampler: grid, trials: 100}
data: {size: 32}
"""


def test_grid_tries_every_recipe_once_across_restarts(study_file, tmp_path):
    study = load_study(study_file(GRID))
    seen = []
    while True:
        store = open_store(study, tmp_path, create=True)
        assert not store.complete()
        proposal = store.ask()
        seen.append(proposal.recipe.model_copy(update={"seed": 0}).model_dump_json())
        store.finish(proposal.number, scores(dice=0.5, params=10, macs=20), CURVE)
        if len(seen) == 6:
            break
    assert len(set(seen)) == 6
    assert store.ask() is None
    assert store.complete()


def test_study_is_complete_when_all_wanted_trials_but_rejected_ones_ended(tiny, tmp_path):
    store = open_store(tiny, tmp_path, create=True)
    store.reject(store.ask().number, "too large", violation=0.5)
    for _ in range(3):
        assert not store.complete()
        proposal = store.ask()
        assert not store.complete()
        store.fail(proposal.number, "f")
    assert store.complete()


def test_optuna_dashboard_names_the_objectives(tiny, tmp_path):
    open_store(tiny, tmp_path, create=True)
    study = optuna.load_study(study_name="tiny", storage=storage_url(tmp_path, "tiny", None))
    assert study.metric_names == ["dice", "params", "macs"]
    assert json.loads(study.user_attrs["study"])["training.epochs"] == "2"


def _share_of_plain_recipes(study, home, end):
    """Ends every distilled trial in one way, finishes the others; returns the undistilled share of later proposals."""
    store = open_store(study, home, create=True)
    chance = random.Random(0)
    for _ in range(30):
        proposal = store.ask()
        if proposal.recipe.path == "logits":
            end(store, proposal.number)
        else:
            store.finish(proposal.number, scores(dice=chance.uniform(0.4, 0.6), params=10, macs=20), CURVE)
    plain = 0
    for _ in range(40):
        proposal = store.ask()
        plain += proposal.recipe.path == "none"
        store.fail(proposal.number, "looked at")
    return plain / 40


def test_sampler_learns_from_stopped_trials_and_not_from_failed_ones(study_file, tmp_path):
    study = load_study(study_file(TINY.replace("trials: 3", "trials: 99")))
    cost = Cost(params=10, macs=20)
    stop = partial(StudyStore.stop, reason="why", curve=CURVE, cost=cost)
    stopped = _share_of_plain_recipes(study, tmp_path / "a", stop)
    failed = _share_of_plain_recipes(study, tmp_path / "b", lambda store, n: store.fail(n, "why"))
    assert stopped >= 0.8
    assert failed <= stopped - 0.2


def test_study_is_found_in_an_sqlite_file_whose_url_has_options(study_file, tmp_path):
    study = load_study(study_file(TINY + f"storage: 'sqlite:///{tmp_path}/own.db?timeout=60'\n"))
    open_store(study, tmp_path, create=True)
    assert (tmp_path / "own.db").is_file()
    assert open_store(study, tmp_path, create=False).records() == ()


def test_grid_is_searched_once_and_resumes_where_it_stopped(study_file, tmp_path):
    text = TINY.replace("{int: [2, 6]}", "{int: [2, 200]}").replace("trials: 3", "trials: 400, sampler: grid")
    study = load_study(study_file(text))
    store = open_store(study, tmp_path, create=True)
    first = [store.ask().recipe.student.width for _ in range(5)]
    again = open_store(study, tmp_path, create=True)
    assert [*first, *(again.ask().recipe.student.width for _ in range(3))] == [2, 2, 3, 3, 4, 4, 5, 5]
    assert not again.complete()


def test_opening_a_study_does_not_change_optuna_s_logging(tiny, tmp_path, capsys):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        open_store(tiny, tmp_path, create=True)
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
        assert "study created" not in capsys.readouterr().err
    finally:
        optuna.logging.set_verbosity(before)
