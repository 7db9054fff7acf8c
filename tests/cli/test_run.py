"""What ``kdsearch run`` says before and after a search."""

from __future__ import annotations

import argparse

import pytest

from kdsearch.cli.next_steps import command_line, pick_lines, round_budget
from kdsearch.cli.run import failures, header
from kdsearch.config.study import StudyConfig
from kdsearch.trials.record import TrialRecord


def test_header_lists_objectives_limits_and_data():
    study = StudyConfig.model_validate(
        {
            "name": "mine",
            "device": "cpu",
            "data": {"size": 64},
            "search": {"trials": 26, "workers": 2, "limits": {"params": "1M", "macs": "120M", "min_specificity": 0.9}},
        }
    )
    assert header(study) == [
        "Study mine: 26 trials (TPE), maximize Dice, minimize parameters and MACs",
        "limits    at most 1M parameters, at most 120M MACs, specificity at least 0.9",
        "images    phantom at 64×64",
        "workers   2 on CPU",
        "teacher   U-Net with tf_efficientnet_lite0 (pretrained)",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"search": {"objectives": ("dice", "specificity"), "sampler": "random"}},
            "(random), maximize Dice and specificity",
        ),
        ({"search": {"objectives": ("dice",)}}, "(TPE), maximize Dice"),
        ({"search": {"executor": "inline"}, "device": "cpu"}, "workers   1 on CPU, in the main process"),
        ({"search": {"executor": "ray"}}, "workers   as many as fit on Ray (local)"),
        ({"teacher": {"ensemble": 3}}, "teacher   3 × U-Net with tf_efficientnet_lite0 (pretrained); training it at"),
        ({"teacher": {"kind": "onnx", "file": "mine.onnx"}}, "teacher   ONNX file mine.onnx; "),
    ],
)
def test_header_names_what_is_special(changes, line):
    assert line in "\n".join(header(StudyConfig.model_validate({"name": "mine", **changes})))


@pytest.mark.parametrize(
    ("params", "budget"), [(1, 1), (961, 1_000), (1_001, 2_000), (8_281, 10_000), (45_000, 50_000), (50_000, 50_000)]
)
def test_suggested_budget_is_round_and_fits_the_student(params, budget):
    assert round_budget(params) == budget


def test_suggested_commands_are_quoted_and_keep_the_folders(tmp_path):
    file = tmp_path / "my study.yaml"
    options = argparse.Namespace(study=file, data=["busi=a b"], settings=["name=b"])
    assert command_line("run", options) == f"kdsearch run '{file}' name=b --data 'busi=a b'"
    assert command_line("ui", options) == f"kdsearch ui '{file}' name=b"
    assert pick_lines(options, params=45_000) == [
        f"pick:    kdsearch pick '{file}' name=b --data 'busi=a b' --params 50k"
    ]


def test_failures_are_counted_by_reason():
    records = [
        TrialRecord(number=number, outcome="failed", recipe=None, reason=reason)
        for number, reason in enumerate(["loss is nan", "out of memory", "loss is nan"])
    ]
    finished = TrialRecord(number=9, outcome="finished", recipe=None)
    assert failures([*records, finished]) == ["2 trials failed: loss is nan", "1 trial failed: out of memory"]
