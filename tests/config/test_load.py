"""Study files: what is refused, and what the error says."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from kdsearch.config.identity import identity_of
from kdsearch.config.load import dump_study, load_study, read_study, with_folders
from kdsearch.config.problems import FORMS
from kdsearch.config.search import PruningConfig
from kdsearch.config.study import StudyConfig
from kdsearch.errors import StudyFileError

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("student: {widht: 3}", "study.yaml:2: student.widht: unknown key; allowed here: .*did you mean 'width'"),
        ("sudent: {width: 3}", "sudent: unknown key; .*did you mean 'student'"),
        (
            "student: {convolution: seprable}",
            "student.conv: must be one of standard, separable; got 'seprable'; did you mean 'separable'",
        ),
        (
            "distillation: {path: {choice: [logits, hiden]}}",
            r"path.choice\[1\]: must be one of .*did you mean 'hidden'",
        ),
        (
            "student: {width: {int: [8, 4]}}",
            r"student.width: the lower bound must be below the upper one, got \[8, 4\]",
        ),
        ("student: {width: {int: [4, 8], log: true, step: 2}}", "log and step cannot be combined"),
        ("student: {width: {int: [4, 8], stp: 2}}", "student.width.stp: unknown key; allowed here: int, log, step"),
        (
            "distillation: [{path: attention, loss: mse, stride: 3}]",
            r"distillation\[0\].stride: must be one of 1, 2, 4, 8, 16, 32, every; got 3",
        ),
        (
            "distillation: [{path: logits, loss: dml, stride: 4}]",
            r"distillation\[0\].stride: unknown key; allowed here: boundary, loss, path, teacher_view, weight",
        ),
        ("search: {silence: 5}", "search.silence: is now called lost_after_epochs"),
        ("search: {pruning: {pruner: reach, optimism: 0.9}}", "search.pruning.optimism: is now called quantile"),
        ("student: {width: 8.5}", "student.width: must be a whole number; got 8.5"),
        ("student: {width: true}", "student.width: must be a whole number; got true"),
        ("student: {width: '8'}", "student.width: must be a whole number; got '8'; write 8 without quotes"),
        ("student: {width: {int: [0, 8]}}", r"student.width.int\[0\]: must be greater than or equal to 2; got 0"),
        ("student: {width: {choice: []}}", "student.width.choice: "),
        ("student: {width: {choice: [4, 4]}}", "the values of a choice must differ"),
        ("training: {learning_rate: {float: [0, 1], log: true}}", r"learning_rate.float\[0\]: must be greater than 0"),
        ("training: {learning_rate: .nan}", "learning_rate"),
        ("data: {sources: [{reader: buzi, folder: x}]}", "must be one of phantom, busi.*did you mean 'busi'"),
        ("data: {sources: [{folder: x}]}", "missing key reader"),
        ("data: {sources: [{reader: busi}]}", r"sources\[0\].folder: is missing"),
        ("data: {sources: [{reader: phantom}, {reader: phantom}]}", "sources must have different names"),
        ("data: {size: 100}", "data.size: 100 is not divisible by 32.* nearest sizes that work are 96 or 128"),
        ("data: {split: {validation: 0.5, test: 0.4}}", "must stay below 0.9"),
        ("distillation: {path: none, loss: mse}", "loss has no effect with path: none; remove loss"),
        (
            "distillation: {loss: mse, temperature: 3}",
            "temperature applies only to loss cwd, and to loss kld on path logits",
        ),
        ("distillation: {path: attention, boundary: 2}", "boundary applies only to path logits with loss mse, kld"),
        ("distillation: {path: logits, loss: cwd, boundary: 2}", "boundary applies only to path logits"),
        (
            "distillation: {path: logits, loss: pkd}",
            "path logits supports loss mse, kld, dml, cwd; add one of them to loss",
        ),
        ("search: {limits: {params: 1x}}", "'1x' is not a number; write it as 820k"),
        ("search: {sampler: grid}\ntraining: {weight_decay: {float: [0, 1]}}", "grid needs a finite space"),
        ("search: {objectives: [dice, dice]}", "objectives must differ"),
        (
            "teacher: {training: {epochs: {choice: [1, 2]}}}",
            "teacher.training: the teacher is not searched; give epochs one value",
        ),
        ("teacher: {checkpoint: t.safetensors, weights: none}", "remove checkpoint or weights"),
        ("student: {width: {int: [4]}}", "student.width.int"),
        ("student: {width: {ints: [4, 8]}}", "student.width.ints: unknown key; allowed here: .*did you mean 'int'"),
        ("training: {learning_rate: {flaot: [1, 8]}}", "flaot: unknown key; allowed here: .*did you mean 'float'"),
        ("<<: 5", "expected a mapping or list of mappings for merging"),
        ("search: {limits: {params: 1e400M}}", "'1e400M' is too large"),
        ("storage: postgresql://host:99999/x", "2: storage: port out of range 0-65535; write HOST:PORT"),
        ("tracking_uri: http://host:abc", "2: tracking_uri: port could not be cast"),
        (
            "training: {learning_rate: [1e-3, 1e-2]}",
            r"must be a number; got a list; a range is written as {float: \[low",
        ),
        ("student: {width: [4, 8]}", r"must be a whole number; got a list; a range is written as {int: \[low, high\]}"),
        ("student: {width: {int: 5}}", r"student.width.int: must be a list; got 5; write \[low, high\]"),
        ("student: {width: {choice: []}}", "student.width.choice: must be a list of at least 1 value; got 0"),
        ("training: {learning_rate: {float: [1, 2, 3]}}", "must be a list of at most 2 values; got 3"),
        ("data: {sources: {reader: phantom}}", "data.sources: must be a list; got a section; write a dash before each"),
        (
            "data: {sources: [{reader: busi, folder: x, bits: '8'}]}",
            "bits: must be one of .*; got '8'; write 8 without",
        ),
        (
            "data: {sources: [{reader: folder, folder: x, bits: 9}]}",
            r"sources\[0\].bits: must be one of 8, 10, .*; got 9",
        ),
        ("data: {sources: [{reader: folder, folder: x, spacing_mm: 0}]}", r"sources\[0\].spacing_mm: must be greater"),
        (
            "data: {sources: [{reader: folder, folder: 3}]}",
            r"sources\[0\].folder: must be text; got 3; write \"3\", in",
        ),
        (
            "data: {sources: [{folder: x}]}",
            r"sources\[0\]: missing key reader \(one of .*folder, .*\); for example, write reader: phantom",
        ),
        (
            "distillation: [{path: logits}]",
            r"distillation\[0\]: missing key loss \(one of mse, .*\); for example, write loss: mse",
        ),
        ("search: {objectives: dice}", r"search.objectives: must be a list; got 'dice'; write \[dice\]"),
        (
            "search: {limits: 5}",
            "search.limits: must be a section, with keys and values; got 5; its keys are macs",
        ),
        (
            "search: []",
            "search: must be a section, with keys and values; got a list; write its keys, such as ask_batch:",
        ),
        ("search: {ray: {address: a b}}", "must be auto, local or HOST:PORT, such as head.example:6379; got 'a b'"),
        ("report_test_scores: on", "report_test_scores: must be true or false; got 'on'; write true"),
        ("seed: '5'", "seed: must be a whole number; got '5'; write 5 without quotes"),
        ("data: {size: }", "data.size: must be a number of pixels .*; got nothing"),
        ("training: {weight_decay: 1e999}", "training.weight_decay: must be a finite number"),
        ("teacher: {weights: None}", "got 'None'; did you mean 'none'"),
        (
            "teacher: {weights: 'package:..foo'}",
            "teacher.weights: must be none, timm, bundled, package:NAME or file:PATH",
        ),
        ("teacher: {kind: onnx, file: ''}", "teacher.file: must be some text; got ''"),
        (
            "teacher: {weights: hub}",
            "teacher.weights: must be none, timm, bundled, package:NAME or file:PATH, such as file:.*; got 'hub'",
        ),
        ("teacher: {checkpoint: t.safetensors, training: {epochs: 3}}", "remove checkpoint or training"),
    ],
)
def test_mistake_is_named_with_its_place(study_file, text, message):
    with pytest.raises(StudyFileError, match=message):
        load_study(study_file(f"name: a\n{text}\n"))


def test_all_mistakes_are_reported_together_in_file_order(study_file):
    path = study_file("name: a\nstudent:\n  widht: 3\ntraining:\n  epochs: 1.5\nseed: -1\n")
    with pytest.raises(StudyFileError) as caught:
        load_study(path)
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["3", "5", "6"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("replicates: 3\nsearch:\n  trials: 4\n  sampler: grid\n  start: inherit", "6: search.start: inherit and"),
        ("replicates: 3\nsearch:\n  trials: 4\n  sampler: tpe", "2: replicates: 3 needs"),
        ("search:\n  trials: 4\n  objectives: [dice, dice]", "4: search: objectives must differ"),
        ("search:\n  trials: 4\n  pruning:\n    warmup_epochs: 2\n    pruner: median", "6: search: pruning.pruner: "),
        ("search:\n  trials: 4\n  pruning: median", "4: search: pruning.pruner: "),
        ("teacher:\n  weights: none\n  size: 96\ndistillation: {path: attention}", "4: teacher.size: must be 1, 2"),
    ],
)
def test_contradicting_settings_are_reported_at_the_first_of_them(study_file, text, place):
    with pytest.raises(StudyFileError, match=f"study.yaml:{place}"):
        load_study(study_file(f"name: a\n{text}\n"))


def test_missing_name_is_reported(study_file):
    with pytest.raises(StudyFileError, match="name: is missing"):
        load_study(study_file("seed: 0\n"))


def test_dumped_study_is_the_same_study(study_file):
    study = load_study(
        study_file("name: a\nstudent: {width: {int: [4, 8], log: true}}\nsearch: {limits: {params: 820k}}\n")
    )
    assert study.search.limits.params == 820_000
    assert load_study(study_file(dump_study(study))) == study


@pytest.mark.parametrize("text", ["{path: none}", "{loss: mse}", "{path: {choice: [none, attention]}, loss: kld}"])
def test_dumped_study_reads_back_equal_for_every_distillation(study_file, text):
    study = load_study(study_file(f"name: a\ndistillation: {text}\n"))
    assert load_study(study_file(dump_study(study))) == study


def test_study_is_frozen(tiny):
    with pytest.raises(ValueError, match="frozen"):
        tiny.seed = 3


@pytest.mark.parametrize("name", ["pareto", "busi", "busi-small", "distillation", "behboodi2024"])
def test_shipped_study_is_valid_and_names_its_schema(name):
    path = Path(__file__).parents[2] / "studies" / f"{name}.yaml"
    assert load_study(path).name == name
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=study.schema.json\n")


def test_folder_on_the_command_line_replaces_the_file_s(study_file):
    study = load_study(study_file("name: a\ndata: {sources: [{reader: busi, folder: $NOWHERE}, {reader: phantom}]}\n"))
    assert with_folders(study, ["/there"]).data.sources[0].folder == "/there"
    assert with_folders(study, ["busi=/there"]).data.sources[0].folder == "/there"
    assert with_folders(study, ["/there/a=b"]).data.sources[0].folder == "/there/a=b"
    with pytest.raises(StudyFileError, match="the study's sources are: busi; did you mean 'busi'"):
        with_folders(study, ["buzi=/there"])


def test_identity_ignores_what_may_change_and_holds_what_may_not(study_file):
    def identity(extra: str) -> dict[str, str]:
        return identity_of(load_study(study_file(f"name: a\n{extra}\n")))

    plain = identity("")
    assert identity("search: {trials: 99, workers: 1}\ntracking_uri: x\nstorage: y") == plain
    assert identity("data: {sources: [{reader: busi, folder: a}]}") == identity(
        "data: {sources: [{reader: busi, folder: b}]}"
    )
    assert identity("student: {width: 4}") != plain
    assert identity("seed: 1") != plain


@pytest.mark.parametrize("key", ["storage", "tracking_uri"])
def test_password_in_a_study_file_is_refused_and_not_repeated(study_file, key):
    with pytest.raises(StudyFileError, match=f"2: {key}: a study file must not contain a password") as refused:
        load_study(study_file(f"name: a\n{key}: postgresql+psycopg://me:secret@host/db\n"))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["s3://key:hidden@bucket/place", "s3://bucket/place?aws_secret_access_key=hidden"])
def test_password_for_checkpoints_is_refused_and_not_repeated(study_file, url):
    with pytest.raises(StudyFileError, match="checkpoint_url: a study file must not contain a password") as refused:
        load_study(study_file(f"name: a\nsearch: {{checkpoint_url: '{url}'}}\n"))
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "pruner"),
    [
        ("quantile: 0.5", "halving"),
        ("margin: 0.5", "median"),
        ("finished_trials: 9", "hyperband"),
        ("warmup_epochs: 9", "none"),
    ],
)
def test_idle_pruning_setting_is_refused(study_file, setting, pruner):
    name = setting.partition(":")[0]
    with pytest.raises(StudyFileError, match=f"{name} has no effect with pruner {pruner}; remove {name}, or use"):
        load_study(study_file(f"name: a\nsearch: {{objectives: [dice], pruning: {{pruner: {pruner}, {setting}}}}}\n"))


def test_password_in_a_url_s_query_is_refused_too(study_file):
    with pytest.raises(StudyFileError, match="must not contain a password"):
        load_study(study_file("name: a\nstorage: postgresql+psycopg://me@host/db?password=secret\n"))


def test_pruner_may_be_named_alone(study_file):
    study = load_study(study_file("name: a\nsearch: {pruning: reach}\n"))
    assert study.search.pruning == PruningConfig(pruner="reach")
    with pytest.raises(StudyFileError, match=r"search\.pruning.*reech.*did you mean 'reach'"):
        load_study(study_file("name: a\nsearch: {pruning: reech}\n"))


@pytest.mark.parametrize("other", ["deterministic: true", "executor: ray", "pruning: reach"])
def test_latency_objective_is_refused_with_settings_that_cannot_measure_it(study_file, other):
    text = f"name: a\nsearch: {{objectives: [dice, latency_ms], {other}}}\n"
    with pytest.raises(StudyFileError, match=f"latency_ms and {other} cannot be combined"):
        load_study(study_file(text))


@pytest.mark.parametrize("weights", ["none", "timm"])
@pytest.mark.parametrize("name", sorted(path.name for path in STUDIES.glob("*.yaml")))
def test_shipped_studies_load_with_other_encoder_weights(study_file, name, weights):
    """The default package of weights states no license, so some users cannot install it."""
    text = (STUDIES / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("  weights:")]
    lines.insert(lines.index("teacher:") + 1, f"  weights: {weights}")
    assert load_study(study_file("\n".join(lines))).teacher.weights == weights


EARLIER = {
    "weights of another encoder": "teacher: {encoder: efficientnet_lite0}",
    "patience": "training: {patience: 3, schedule: cosine}",
    "an idle setting": "distillation: {path: attention, boundary: 2.0}",
    "a size": "data: {size: 40}",
    "a pruner": "search: {pruning: {pruner: none, margin: 0.1}}",
}
"""What a release accepted, by the rule that a later one has."""


@pytest.mark.parametrize("text", EARLIER.values(), ids=EARLIER)
def test_rule_that_came_later_keeps_nobody_from_reading_and_nobody_trains_against_it(study_file, text):
    path = study_file(f"name: a\n{text}\n")
    with pytest.raises(StudyFileError, match="study.yaml:2: "):
        load_study(path)
    study = read_study(path)
    assert study.name == "a"
    assert pickle.loads(pickle.dumps(study)) == study


def test_obsolete_setting_is_ignored_with_a_warning_when_reading(study_file, caplog):
    path = study_file("name: a\nsearch: {silence: 3, trials: 7, pruning: {optimism: 0.5}}\n")
    with pytest.raises(StudyFileError, match="silence"):
        load_study(path)
    assert read_study(path).search.trials == 7
    assert "search.silence" in caplog.text
    assert "search.pruning.optimism" in caplog.text


@pytest.mark.parametrize("text", ["data: {size: large}", "search: {trails: 3}", "teacher: {kind: oracle}"])
def test_files_that_are_not_studies_cannot_be_read_either(study_file, text):
    path = study_file(f"name: a\n{text}\n")
    with pytest.raises(StudyFileError) as training:
        load_study(path)
    with pytest.raises(StudyFileError, match=re.escape(str(training.value))):
        read_study(path)


def test_malformed_name_gets_a_valid_suggestion(study_file):
    with pytest.raises(
        StudyFileError, match="1: name: must start with a letter or .*; got 'my study'; for example, write my-study"
    ):
        load_study(study_file("name: my study\n"))
    with pytest.raises(StudyFileError, match="name: must have at most 60 characters; got 80"):
        load_study(study_file(f"name: {80 * 'a'}\n"))


def test_every_form_of_text_has_a_message():
    found: set[str] = set()

    def walk(node):
        if isinstance(node, dict):
            found.update(value for key, value in node.items() if key == "pattern" and isinstance(value, str))
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(inner)

    walk(StudyConfig.model_json_schema())
    assert found == set(FORMS)
