"""A study's identity: the settings that differ from their defaults, whichever release stored them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdsearch.config.identity import SEARCHED, SECTIONS, _flat, dump_identity, identity_of, read_identity
from kdsearch.config.load import load_study, read_study


def test_study_without_settings_has_no_identity(study_file):
    assert identity_of(load_study(study_file("name: a\n"))) == {}


def test_settings_are_named_as_in_the_study_file(study_file):
    study = load_study(study_file("name: a\nstudent: {width: {int: [4, 8]}}\ntraining: {augmentation: {flip: 0}}\n"))
    assert identity_of(study) == {"student.width": '{"int": [4, 8]}', "training.augmentation.flip": "0.0"}


WRITTEN = json.loads((Path(__file__).parent / "identities_schema_0.json").read_text(encoding="utf-8"))
"""Study files and the identities that the last commit before schema numbers stored for them."""


@pytest.mark.parametrize("text", [text for text in WRITTEN if text != "name: a\n"])
def test_unversioned_identity_equals_the_current_one(text, study_file):
    study = read_study(study_file(text))
    stored = json.dumps(WRITTEN[text])
    assert read_identity(stored) == identity_of(study) == read_identity(dump_identity(study))


def test_default_weight_of_an_unversioned_study_is_written_out(study_file):
    (stored,) = [json.dumps(stored) for text, stored in WRITTEN.items() if text == "name: a\n"]
    assert read_identity(stored) == {"distillation.weight": "0.5"}
    assert identity_of(load_study(study_file("name: a\n"))) == {}


@pytest.mark.parametrize(
    ("was", "is_now", "stored"),
    [
        ("teacher: {kind: onnx, file: a.onnx}", "teacher: {kind: onnx, file: b/a.onnx}", {"teacher.file": "a.onnx"}),
        (
            "teacher: {kind: predictions, folder: a}",
            "teacher: {kind: predictions, folder: b}",
            {"teacher.folder": "a"},
        ),
        ("teacher: {checkpoint: a}", "teacher: {checkpoint: b}", {"teacher.checkpoint": "a"}),
        ("teacher: {weights: 'file:a'}", "teacher: {weights: 'file:b'}", {"teacher.weights": "file:a"}),
        (
            "student: {family: timm, weights: 'file:a'}",
            "student: {family: timm, weights: 'file:b'}",
            {"student.weights": "file:a"},
        ),
    ],
)
def test_files_that_moved_leave_a_study_what_it_was(was, is_now, stored, study_file):
    before, after = (identity_of(load_study(study_file(f"name: a\n{text}\n"))) for text in (was, is_now))
    assert before == after
    written = {name: json.dumps(value) for name, value in stored.items()}
    assert read_identity(json.dumps({**before, **written, "schema": 2})) == after


def test_weights_that_are_no_file_are_part_of_a_study(study_file):
    texts = ("none", "timm", "package:a", "'file:a'")
    found = [identity_of(load_study(study_file(f"name: a\nteacher: {{weights: {text}}}\n"))) for text in texts]
    assert len({one.get("teacher.weights") for one in found}) == 4


def test_no_default_changes_without_a_step(study_file):
    """A changed default would make older studies and teachers others in silence: write the old one out in a step."""
    study = load_study(study_file("name: a\n"))
    values = study.model_dump(mode="json", include=set(SECTIONS)) | {
        "search": study.search.model_dump(mode="json", include=set(SEARCHED))
    }
    known = json.loads((Path(__file__).parent / "identity_defaults.json").read_text(encoding="utf-8"))
    found = _flat(values)
    assert {name: found[name] for name in known} == known


def test_dismissed_columns_make_no_other_study(study_file):
    source = "name: a\ndata: {sources: [{reader: folder, folder: x, csv: t.csv%s}]}\n"
    plain, dismissed = (
        identity_of(load_study(study_file(source % more))) for more in ("", ", ignore_columns: [patient]")
    )
    assert plain == dismissed
