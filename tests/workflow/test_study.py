"""The study in Python: the command line's verbs for scripts and notebooks."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import kdsearch
from kdsearch.campaign.events import TrialEnded
from kdsearch.cli.main import main
from kdsearch.config.yaml_file import YamlFile
from kdsearch.errors import KdsearchError, NotRunYetError, StudyFileError
from kdsearch.export.description import read_description
from tests.tiny import INLINE

STORED = Path(__file__).parents[1] / "stored" / "unversioned"
BEST, SMALLEST = 7, 2


@pytest.fixture
def study(tmp_path, record, monkeypatch) -> kdsearch.Study:
    """A study with trials in every state."""
    shutil.copytree(STORED, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record)
    monkeypatch.setenv("STORED_IMAGES", "nowhere")
    return kdsearch.Study("study.yaml", data="images", home="home")


def test_front_has_the_students_that_the_command_shows(study, capsys, monkeypatch):
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    front = study.front()
    assert main(["front", "study.yaml", "--csv"]) == 0
    shown = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [str(number) for number in front.index] == shown
    assert front.loc[BEST, "dice"] == pytest.approx(0.14288, abs=1e-5)
    assert front["params"].is_monotonic_increasing
    assert front.loc[BEST, "student.width"] == "6"


def test_trials_of_every_outcome_have_a_row(study):
    trials = study.trials()
    assert list(trials.index) == list(range(12))
    assert trials["outcome"].value_counts().to_dict() == {
        "finished": 4, "stopped": 3, "failed": 2, "rejected": 2, "running": 1,
    }  # fmt: skip
    assert trials.loc[4, "reason"] == "the loss became nan in epoch 1"
    assert np.isnan(trials.loc[4, "dice"])


def test_chart_draws_every_student(study):
    drawn = [number for trace in study.chart().data if trace.mode == "markers" for number in trace.x]
    assert set(study.trials().query("outcome == 'finished'")["params"]) <= set(drawn)


def test_student_is_picked_within_a_budget_and_loaded(study):
    picked = study.pick(params="1k", out="small", registry=False, latency=False)
    assert picked.trial == 1
    assert "best validation Dice of 3 students within params ≤ 1,000" in picked.reason
    assert picked.model_uri is None
    assert picked.load()("images/images/00.png").shape == (32, 32)
    assert study.pick(trial=SMALLEST, out="chosen", registry=False, latency=False).reason.startswith(
        f"Trial {SMALLEST}, as requested"
    )


def test_pick_names_the_nearest_student_if_none_is_within_budget(study):
    with pytest.raises(KdsearchError, match=r"none of 4 students is within params ≤ 100; the nearest is trial 2"):
        study.pick(params=100)
    assert not Path("picked/stored-2").exists()


def test_rules_that_exclude_each_other_are_refused(study):
    with pytest.raises(KdsearchError, match="smallest_within, knee and trial cannot be combined"):
        study.pick(knee=True, trial=1)


def test_report_is_one_file(study):
    place = study.report("reports/study.html")
    assert "<html" in place.read_text(encoding="utf-8")[:500].lower()


@pytest.mark.slow
def test_student_can_be_picked_after_images_were_added_or_removed(study):
    before = read_description(study.pick(trial=SMALLEST, out="before", registry=False, latency=False).folder)
    shutil.copy("images/images/00.png", "images/images/new.png")
    shutil.copy("images/masks/00.png", "images/masks/new.png")
    after = read_description(study.pick(trial=SMALLEST, out="after", registry=False, latency=False).folder)
    assert (after.data, after.onnx, after.subgroups) == (before.data, before.onnx, before.subgroups)
    assert before.native is not None
    assert after.native is None
    assert after.chosen.endswith("so there are no scores at original resolution.")
    assert Path("after/seen.txt").read_bytes() == Path("before/seen.txt").read_bytes()
    shutil.rmtree("images/images")
    assert study.pick(trial=SMALLEST, out="gone", registry=False, latency=False).trial == SMALLEST
    shutil.rmtree("home/data")
    with pytest.raises(KdsearchError, match="images"):
        study.pick(trial=SMALLEST, out="none", registry=False, latency=False)


def test_unwritable_path_is_named(study):
    Path("file").write_text("", encoding="utf-8")
    with pytest.raises(KdsearchError, match=r"file/study\.html cannot be written: .*; choose another path"):
        study.report("file/study.html")
    with pytest.raises(KdsearchError, match=r"file/student cannot be written: .*; choose another path"):
        study.pick(trial=SMALLEST, out="file/student", registry=False, latency=False)


@pytest.fixture
def place(tmp_path, tiny_home, record, monkeypatch):
    """A folder with images and a teacher, and no study yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record)
    shutil.copytree(tiny_home, ".kdsearch")


@pytest.mark.usefixtures("place")
def test_run_reports_events_and_progress(capsys):
    Path("tiny.yaml").write_text(INLINE, encoding="utf-8")
    study = kdsearch.Study("tiny.yaml")
    with pytest.raises(NotRunYetError, match="has not been run yet"):
        study.front()
    events = []
    assert study.run(on_event=events.append, trials=2, progress=True) is study
    assert "(2 of 2)" in capsys.readouterr().out
    assert sum(isinstance(event, TrialEnded) for event in events) == 2
    assert len(study.trials()) == 2
    assert study.run(trials=2).front().index.isin([0, 1]).all()


def test_file_that_is_not_a_study_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("name: a\nstudent: {widht: 3}\n", encoding="utf-8")
    with pytest.raises(StudyFileError, match=r"a.yaml:2: student.widht: unknown key"):
        kdsearch.Study(tmp_path / "a.yaml")
    with pytest.raises(AttributeError, match="no attribute 'Studdy'"):
        kdsearch.Studdy  # noqa: B018


def test_study_refused_by_a_later_rule_can_be_read_but_not_run(tmp_path):
    (tmp_path / "a.yaml").write_text("name: a\ntraining: {patience: 3}\n", encoding="utf-8")
    study = kdsearch.Study(tmp_path / "a.yaml", home=tmp_path)
    with pytest.raises(NotRunYetError, match="has not been run yet"):
        study.front()
    for train in (study.run, study.confirm, lambda: study.test(0)):
        with pytest.raises(StudyFileError, match="a.yaml:2: .*patience stops training before the learning rate"):
            train()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"params": 0}, "budget: params must be above zero, got 0"),
        ({"min_dice": 80}, "budget: min_dice must be between 0 and 1, got 80"),
        ({"smallest_within": -1}, "rule: .* got -1"),
        ({"int8_bound": 2}, "int8_bound must be between 0 and 1"),
        ({"params": "many"}, "'many' is not a number"),
    ],
)
def test_impossible_options_are_refused(study, wrong, message):
    with pytest.raises(KdsearchError, match=message):
        study.pick(registry=False, **wrong)


@pytest.mark.parametrize("wrong", [{"trials": -1}, {"workers": 0}])
def test_impossible_numbers_of_trials_and_workers_are_refused(wrong):
    with pytest.raises(StudyFileError, match="must be at least 1"):
        kdsearch.Study({"name": "tiny"}).run(**wrong)


def test_study_survives_pickling(study):
    again = pickle.loads(pickle.dumps(study))
    assert again.config == study.config
    assert again.front().equals(study.front())


REPEATED = INLINE.replace("name: tiny", "name: tiny\nreplicates: 2").replace("inline", "inline, sampler: grid")


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_repeats_are_averaged_and_can_be_separated():
    Path("r.yaml").write_text(REPEATED.replace("{int: [2, 6]}", "4"), encoding="utf-8")
    study = kdsearch.Study("r.yaml").run()
    trials = study.trials()
    assert trials.index.names == ["repeat", "trial"]
    assert set(trials.index.get_level_values("repeat")) == {1, 2}
    number = study.front().index[0]
    assert study.front().loc[number, "dice"] == pytest.approx(trials.xs(number, level="trial")["dice"].mean())
    shutil.rmtree(".kdsearch/studies/tiny.repeat-2")
    assert set(study.trials().index.get_level_values("repeat")) == {1}, "the other was never run"


def test_study_from_a_dict_equals_the_study_from_its_file(tmp_path):
    (tmp_path / "study.yaml").write_text(INLINE, encoding="utf-8")
    settings = YamlFile(tmp_path / "study.yaml").content
    assert kdsearch.Study.from_dict(settings).config == kdsearch.Study(tmp_path / "study.yaml").config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a", "search": {"trials": 0}}, r"study: search\.trials: .*; got 0"),
        ({"name": "a", "search": {"batch": 2}}, r"study: search\.batch: is now called ask_batch"),
        ({"name": Path("a")}, "study: .*PosixPath.*; write text, numbers, lists and dicts only"),
        ({"name": "a", "data": {"size": 60}}, "study: data.size: 60 is not divisible by 32"),
    ],
)
def test_mistake_in_a_dict_is_named_by_its_setting(settings, message, tmp_path):
    with pytest.raises(StudyFileError, match=message):
        kdsearch.Study.from_dict(settings, home=tmp_path).run()


def test_package_exports_exactly_its_public_names():
    for name in kdsearch.__all__:
        assert getattr(kdsearch, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        _ = kdsearch.load
