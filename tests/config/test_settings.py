"""Settings on the command line go through the same validation as those in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.load import find_study, load_study, read_study, shipped_studies
from kdsearch.errors import StudyFileError
from tests.tiny import TINY


def test_settings_replace_those_of_the_file(study_file):
    settings = ["training.epochs=7", "student.width={int: [2, 9]}", "data.sources.0.images=40", "seed=5"]
    study = load_study(study_file(TINY), settings)
    assert study.training.epochs == 7
    assert study.student.width.bounds == (2, 9)
    assert study.data.sources[0].images == 40
    assert study.seed == 5
    assert study.teacher == load_study(study_file(TINY)).teacher


def test_settings_add_sections_and_the_last_one_wins(study_file):
    study = load_study(study_file("name: a\n"), ["search.limits.params=50k", "search.trials=4", "search.trials=6"])
    assert (study.search.limits.params, study.search.trials) == (50_000, 6)


def test_values_are_read_as_in_a_file(study_file):
    study = load_study(study_file("name: a\n"), ["name=1e-3x", "tags=[a, b]", "training.learning_rate=1e-3"])
    assert (study.name, study.tags, study.training.learning_rate) == ("1e-3x", ("a", "b"), 0.001)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "training.epochs=abc",
            "command line: .*=abc: training.epochs: must be a whole number; got 'abc'",
        ),
        ("training.epoch=3", "command line: training.epoch=3: training.epoch: unknown key; .*did you mean 'epochs'"),
        (
            "search.vary_seed=true",
            "command line: .*=true: search.vary_seed: is now called seed_per_trial",
        ),
        ("data.size=65", "command line: data.size=65: data.size: 65 is not divisible by 8"),
        ("name.x=1", "command line: name.x=1: name is not a section"),
        ("data.sources.3.seed=1", "command line: .*: data.sources is a list of 1; number its entries from 0"),
        ("tags=[a", "command line: tags=.a: '.a' is not valid YAML"),
        ("=3", "=3: expected KEY=VALUE, such as training.epochs=20"),
        ("training..epochs=3", "expected KEY=VALUE"),
        ("more.yaml", "more.yaml: expected KEY=VALUE"),
    ],
)
def test_wrong_setting_is_named_with_a_remedy(study_file, setting, message):
    with pytest.raises(StudyFileError, match=message):
        load_study(study_file(TINY), [setting])


def test_problems_of_the_file_keep_their_lines(study_file):
    with pytest.raises(StudyFileError) as caught:
        load_study(study_file("name: a\ntraining:\n  epochs: x\n"), ["seed=-1"])
    first, second = str(caught.value).splitlines()
    assert ":3: training.epochs: must be" in first + second
    assert "command line: seed=-1: seed: must be" in first + second


def test_old_name_in_a_setting_is_read_for_results(study_file, caplog):
    assert read_study(study_file(TINY), ["search.vary_seed=true"]).search.seed_per_trial
    assert "command line: search.vary_seed=true" in caplog.text


def test_study_that_comes_with_kdsearch_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_study(Path("pareto")).name == "pareto"
    assert set(shipped_studies()) >= {"pareto", "busi-small", "busi", "distillation"}
    Path("pareto").write_text("name: mine\n", encoding="utf-8")
    assert load_study(Path("pareto")).name == "mine"
    assert find_study(Path("x/pareto")) == Path("x/pareto")
    with pytest.raises(StudyFileError, match="no study of this name comes with kdsearch; did you mean 'distillation'"):
        load_study(Path("distilation"))
