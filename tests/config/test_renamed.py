"""Settings that were renamed: refused with the new name by who trains, read under it by who only reads."""

from __future__ import annotations

import json

import pytest

from kdsearch.config.identity import identity_of, read_identity
from kdsearch.config.load import load_study, read_study
from kdsearch.config.renamed import KEYS, NO_LONGER_READ, WORDS, former_names, up_to_date
from kdsearch.config.study import StudyConfig
from kdsearch.errors import StudyFileError

OLD = """\
name: a
repeats: 2
score_test: true
references: [{label: U-Net, dice: 0.7, params: 34M}]
data: {on_defect: stop, train_without_lesion: true}
teacher:
  ensemble: 2
  members: seeds
  flip: true
  training: {averaged_epochs: 2, encoder_rate: 0.2}
student: {convolution: separable, convolutions: 1}
distillation: {loss: {choice: [usual, kld]}, balance: shared}
training: {averaged_epochs: 0.5}
search:
  sampler: grid
  objectives: [dice, empty_share]
  limits: {empty_share: 0.5}
  start: cold
  vary_seed: true
  batch: 4
  checkpoints: there
  heartbeat_timeout: 20
confirm: {members: 3, delta: 0.01}
"""
NEW = """\
name: a
replicates: 2
report_test_scores: true
reference_points: [{label: U-Net, dice: 0.7, params: 34M}]
data: {on_invalid: error, train_on_negatives: true}
teacher:
  ensemble: 2
  ensemble_by: seeds
  average_flipped: true
  training: {ema_epochs: 2, encoder_lr_factor: 0.2}
student: {conv: separable, convs_per_stage: 1}
distillation: {loss: {choice: [default, kld]}, loss_mix: interpolate}
training: {ema_epochs: 0.5}
search:
  sampler: grid
  objectives: [dice, specificity]
  limits: {min_specificity: 0.5}
  start: scratch
  seed_per_trial: true
  ask_batch: 4
  checkpoint_url: there
  lost_after_epochs: 20
confirm: {students: 3, margin: 0.01}
"""


def test_each_old_name_is_refused_with_its_line_and_the_new_one(study_file):
    path = study_file(OLD)
    with pytest.raises(StudyFileError) as refused:
        load_study(path)
    lines = str(refused.value).splitlines()
    assert lines[0] == f"{path}:2: repeats: is now called replicates"
    assert f"{path}:5: data.on_defect: stop is now called error" in lines
    assert f"{path}:12: distillation.loss.choice[0]: usual is now called default" in lines
    assert f"{path}:16: search.objectives[1]: empty_share is now called specificity" in lines
    assert f"{path}:17: search.limits.empty_share: is now called min_specificity" in lines
    assert f"{path}:18: search.start: cold is now called scratch" in lines
    assert len(lines) == 25


def test_who_only_reads_reads_old_names_as_the_new_ones(study_file, caplog):
    assert read_study(study_file(OLD)) == load_study(study_file(NEW))
    assert "confirm.delta: is now called margin" in caplog.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("distillation: [{on: logits, loss: mse}]", "distillation: [{path: logits, loss: mse}]"),
        ("student: {family: timm, encoder_rate: 0.5}", "student: {family: timm, encoder_lr_factor: 0.5}"),
        (
            "search: {start: inherit, inherited_epochs: 0.5}",
            "search: {start: inherit, inherit_epoch_fraction: 0.5}",
        ),
        ("search: {checkpoints: &there a}\nstorage: *there", "search: {checkpoint_url: a}\nstorage: a"),
    ],
)
def test_old_name_is_recognized_wherever_it_is_written(old, new, study_file):
    was, now = study_file(f"name: a\n{old}\n"), f"name: a\n{new}\n"
    with pytest.raises(StudyFileError, match="is now called"):
        load_study(was)
    read = read_study(was)
    assert read == load_study(study_file(now))


def test_other_mistakes_are_named_with_the_old_names_in_the_order_of_the_file(study_file):
    path = study_file("name: a\ntraining: {epochs: 0}\nconfirm:\n  delta: 5\n  folds: x\n")
    with pytest.raises(StudyFileError) as refused:
        load_study(path)
    named = [line.removeprefix(f"{path}:") for line in str(refused.value).splitlines()]
    assert [line.partition(":")[0] for line in named] == ["2", "4", "4", "5"]
    assert named[1] == "4: confirm.delta: is now called margin"
    assert named[2].startswith("4: confirm.margin: ")


def test_old_name_next_to_the_new_one_is_an_unknown_key(study_file):
    with pytest.raises(StudyFileError, match="search.batch: unknown key; .*ask_batch"):
        load_study(study_file("name: a\nsearch: {batch: 2, ask_batch: 4}\n"))


def test_every_new_name_is_a_setting():
    schema = json.dumps(StudyConfig.model_json_schema())
    for name in (*KEYS.values(), *NO_LONGER_READ.values()):
        assert f'"{name}": {{' in schema, name
    for words in WORDS.values():
        for word in words.values():
            assert f'"{word}"' in schema, word


def test_stored_identity_with_old_names_equals_the_current_one(study_file):
    settings = {
        "data.on_defect": "skip",
        "data.train_without_lesion": True,
        "student.convolution": {"choice": ["standard", "separable"]},
        "student.convolutions": {"int": [1, 2]},
        "distillation": [{"loss": "mse", "on": "attention"}, {"loss": "dml", "on": "logits", "weight": 0.5}],
        "search.objectives": ["dice", "empty_share"],
        "search.limits.empty_share": 0.5,
        "search.start": "inherit",
    }
    stored = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
    text = """\
name: a
data: {on_invalid: skip, train_on_negatives: true}
student: {conv: {choice: [standard, separable]}, convs_per_stage: {int: [1, 2]}}
distillation: [{path: attention, loss: mse}, {path: logits, loss: dml, weight: 0.5}]
search: {objectives: [dice, specificity], limits: {min_specificity: 0.5}, start: inherit}
"""
    assert read_identity(json.dumps({"schema": 3, **stored})) == identity_of(load_study(study_file(text)))


def test_former_names_undo_the_new_ones_in_the_same_order():
    was = {"members": "seeds", "flip": True, "training": {"epochs": 3, "encoder_rate": 0.1}, "weights": "none"}
    now = up_to_date({"teacher": was}).content["teacher"]
    assert list(now) == ["ensemble_by", "average_flipped", "training", "weights"]
    assert json.dumps(former_names(now, "teacher")) == json.dumps(was)


def test_up_to_date_content_stays_as_it_is():
    content = {"search": {"ask_batch": 2, "start": "scratch"}, "distillation": [{"path": "logits"}]}
    now = up_to_date(content)
    assert now.content == content
    assert now.renamed == ()
