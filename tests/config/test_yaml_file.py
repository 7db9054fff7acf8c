"""Study files as plain data with line numbers."""

from __future__ import annotations

import tracemalloc

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
    with pytest.raises(StudyFileError, match=r"study.yaml:2: YAML tag .* is not allowed"):
        YamlFile(study_file(f"a: 1\nb: {tag} {{x}}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "study.yaml:2: duplicate key 'a'"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "expected `key: value` pairs"),
        ("", "expected `key: value` pairs"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("? [a, b]\n: 1\n", "a key must be text"),
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
    with pytest.raises(StudyFileError, match="is not UTF-8 text"):
        YamlFile(path)


@pytest.mark.parametrize(
    "text", ["1234567890123e45", "0891234567891234", "1e3", "089", "1_0", "no", "null", "a: b", "", "½"]
)
def test_text_stays_text(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(dump_yaml({"text": text, "number": 1e-3, "list": [1, None, True]}), encoding="utf-8")
    assert YamlFile(path).content == {"text": text, "number": 0.001, "list": [1, None, True]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"# \x1b[31m\nname: a\n", r"study.yaml:1: contains the control character U\+001B; remove it"),
        (b"name: a\n# x\x00\n", r"study.yaml:2: contains the control character U\+0000"),
        ("name: a\n".encode("utf-16-le"), r"study.yaml: .*; is it UTF-16\? save it as UTF-8"),
        ("name: a\n".encode("utf-16"), r"study.yaml: .*; is it UTF-16\? save it as UTF-8"),
        (b"name: ab\xe9\n", r"study.yaml: is not UTF-8 text; save it as UTF-8"),
        (b'name: "\\UFFFFFFFF"\n', r"study.yaml: not valid YAML: .*escape"),
        (b'name: "\\ud800"\n', r"study.yaml:1: .*half of a character"),
        (b'"\\ud800": 1\n', r"study.yaml:1: .*half of a character"),
        (b"name: a\nstudent: " + b"[" * 150 + b"]" * 150, r"study.yaml:2: nested more than 50 levels deep"),
        (b"name: a\nstudent: " + b"[" * 5000 + b"]" * 5000, r"study.yaml: not valid YAML: "),
        (b"name: a\nseed: 1" + b"0" * 5000, r"study.yaml:2: .* is not a valid int"),
        (b"a: &a {<<: *a}\n", r"study.yaml:1: a mapping merges itself"),
    ],
)
def test_file_that_is_no_study_is_refused_in_a_line(tmp_path, content, problem):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyFileError, match=problem) as refused:
        YamlFile(path)
    assert len(str(refused.value)) < 300


def test_merges_that_multiply_cost_no_memory(tmp_path):
    """Each level would be ten times the one before; PyYAML below 6.0.4 makes them all."""
    path = tmp_path / "study.yaml"
    levels = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 30)]
    path.write_text("\n".join(["a0: &a0 {x: 1, y: 2}", *levels, ""]))
    tracemalloc.start()
    file = YamlFile(path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert file.content["a29"] == {"x": 1, "y": 2}


def test_merged_keys_give_way_to_own_ones_and_to_those_of_earlier_mappings(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {z: 3, <<: [*a, *b]}\nd:\n  <<: *a\n  x: 4\n")
    file = YamlFile(path)
    assert file.content["c"] == {"x": 1, "y": 1, "z": 3}
    assert file.content["d"] == {"x": 4, "y": 1}
    assert (file.line(("c", "y")), file.line(("c", "z")), file.line(("d", "x"))) == (1, 3, 6)
