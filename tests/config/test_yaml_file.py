"""Study files as plain data with line numbers."""

from __future__ import annotations

import pytest

from kdsearch.config.yaml_file import YamlFile, dump_yaml
from kdsearch.errors import StudyFileError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-.5", -0.5),
        ("3", 3),
        ("1_000", 1000),
        ("3.", 3.0),
        ("010", 10),
        ("-007", -7),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("none", "none"),
    ],
)
def test_scalar_means_what_it_looks_like(study_file, text, value):
    read = YamlFile(study_file(f"key: {text}")).content["key"]
    assert read == value
    assert type(read) is type(value)


def test_line_of_each_value_is_known(study_file):
    file = YamlFile(study_file("a: 1\nb:\n  c:\n    - 2\n    - d: 3\n"))
    assert file.line(("a",)) == 1
    assert file.line(("b", "c", 1, "d")) == 5
    assert file.line(("b", "unknown")) == 2


def test_anchors_and_merges_are_followed(study_file):
    file = YamlFile(study_file("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\n"))
    assert file.content["use"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!custom", "!!set", "!!binary"])
def test_tag_is_refused(study_file, tag):
    with pytest.raises(StudyFileError, match=r"study.yaml:2: the tag .* is refused"):
        YamlFile(study_file(f"a: 1\nb: {tag} {{x}}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "study.yaml:2: the key 'a' stands twice"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("? [a, b]\n: 1\n", "a key must be a word"),
        ("a: &a [*a]\n", "anchors expand"),
    ],
)
def test_broken_file_is_refused(study_file, text, message):
    with pytest.raises(StudyFileError, match=message):
        YamlFile(study_file(text))


def test_expanding_anchors_are_refused_before_they_fill_memory(study_file):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    with pytest.raises(StudyFileError, match="anchors expand to more than 20,000 values"):
        YamlFile(study_file(bomb))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(StudyFileError, match="no such study file"):
        YamlFile(tmp_path / "absent.yaml")


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(StudyFileError, match="cannot be read as text"):
        YamlFile(path)


@pytest.mark.parametrize(
    "text", ["1234567890123e45", "0891234567891234", "1e3", "089", "1_0", "no", "null", "a: b", "", "½"]
)
def test_text_stays_text(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(dump_yaml({"text": text, "number": 1e-3, "list": [1, None, True]}), encoding="utf-8")
    assert YamlFile(path).content == {"text": text, "number": 0.001, "list": [1, None, True]}
