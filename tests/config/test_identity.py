"""A study's identity: the settings that differ from their defaults, whichever release stored them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdsearch.config.identity import dump_identity, identity_of, read_identity
from kdsearch.config.load import load_study
from kdsearch.config.study import StudyConfig
from kdsearch.errors import SearchError

STUDIES = Path(__file__).parents[2] / "studies"


def _as_schema_0(study: StudyConfig) -> dict[str, str]:
    """As the releases before schema numbers wrote it."""
    sections = {"seed", "data", "teacher", "student", "distillation", "training"}
    values = study.model_dump(mode="json", include=sections)
    for source in values["data"]["sources"]:
        source.pop("folder", None)
    values["search"] = study.search.model_dump(mode="json", include={"objectives", "limits", "vary_seed"})
    flat: dict[str, str] = {}
    for section, content in values.items():
        fields = content if isinstance(content, dict) else {"": content}
        flat |= {f"{section}.{key}".rstrip("."): json.dumps(value, sort_keys=True) for key, value in fields.items()}
    return flat


def test_study_without_settings_has_no_identity(study_file):
    assert identity_of(load_study(study_file("name: a\n"))) == {}


def test_settings_are_named_as_in_the_study_file(study_file):
    study = load_study(study_file("name: a\nstudent: {width: {int: [4, 8]}}\ntraining: {augmentation: {flip: 0}}\n"))
    assert identity_of(study) == {"student.width": '{"int": [4, 8]}', "training.augmentation.flip": "0.0"}


@pytest.mark.parametrize("name", ["pareto", "busi", "busi-small", "behboodi2024"])
def test_identity_of_an_unversioned_study_is_that_of_the_same_study_now(name, monkeypatch):
    monkeypatch.setenv("BUSI_FOLDER", "here")
    study = load_study(STUDIES / f"{name}.yaml")
    assert read_identity(json.dumps(_as_schema_0(study))) == identity_of(study) == read_identity(dump_identity(study))


def test_unversioned_study_with_a_given_teacher_is_read(study_file):
    study = load_study(study_file("name: a\nteacher: {checkpoint: t.safetensors, encoder_depth: 4}\n"))
    assert read_identity(json.dumps(_as_schema_0(study))) == identity_of(study)


def test_unversioned_study_with_settings_that_are_gone_is_refused(study_file):
    old = _as_schema_0(load_study(study_file("name: a\n"))) | {"student.twins": "true"}
    with pytest.raises(SearchError, match=r"made by an older release .*: student\.twins: "):
        read_identity(json.dumps(old))
