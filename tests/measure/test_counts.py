"""Parameters and multiply-adds, compared with hand counts and other tools."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from kdsearch.config.networks import UNetSpec
from kdsearch.config.task import square
from kdsearch.measure.counts import count, count_by_tools
from kdsearch.models.students import build_student
from kdsearch.trials.scores import Cost


def test_one_convolution_by_hand():
    model = nn.Conv2d(1, 64, 3, padding=1)
    assert count(model, square(64)) == Cost(params=9 * 64 + 64, macs=64 * 9 * 64 * 64)


def test_macs_match_the_design_page():
    model = nn.Sequential(nn.Conv2d(1, 16, 1), nn.Conv2d(16, 16, 3, padding=1))
    assert count(model, square(32)).macs == 16 * 32 * 32 + 2_359_296


def test_depthwise_linear_and_attention_by_hand():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.linear = nn.Linear(8, 4)

        def forward(self, x):
            tokens = self.depthwise(x.expand(-1, 8, -1, -1)).flatten(2).transpose(1, 2)
            tokens = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
            return self.linear(tokens)

    pixels = 16 * 16
    assert count(Mixed(), square(16)).macs == 9 * 8 * pixels + 2 * pixels * pixels * 8 + pixels * 8 * 4


def test_functional_calls_count_too():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 1, 3, 3))

        def forward(self, x):
            return nn.functional.conv2d(x, self.weight, padding=1)

    assert count(Functional(), square(16)) == Cost(params=36, macs=36 * 256)


def test_flops_are_twice_macs():
    assert Cost(params=1, macs=21).flops == 42


@pytest.mark.parametrize("conv", ["standard", "separable"])
def test_meta_device_counts_as_the_cpu_does(conv):
    spec = UNetSpec(width=6, depth=3, convs_per_stage=2, conv=conv)
    assert count(build_student(spec, device="meta"), square(64)) == count(build_student(spec), square(64))


@pytest.mark.parametrize("conv", ["standard", "separable"])
def test_other_tools_agree_except_for_known_differences(conv, caplog):
    spec = UNetSpec(width=8, depth=3, convs_per_stage=2, conv=conv)
    model = build_student(spec)
    cost = count(model, square(64))
    with caplog.at_level(logging.WARNING):
        counts = {found.tool: found for found in count_by_tools(model, square(64), cost=cost)}
    assert not caplog.records
    assert cost.macs < counts["fvcore"].value < 1.15 * cost.macs
    assert cost.macs < counts["ptflops"].value < 1.2 * cost.macs
    assert counts["fvcore"].input_shape == (1, 1, 64, 64)
    assert "multiply-adds" in counts["ptflops"].unit


def test_disagreeing_tools_cause_warnings(caplog):
    model = build_student(UNetSpec(width=8, depth=2, convs_per_stage=1, conv="standard"))
    with caplog.at_level(logging.WARNING):
        count_by_tools(model, square(32), cost=Cost(params=1, macs=1))
    assert [record.message.split()[0] for record in caplog.records] == ["fvcore", "ptflops"]


def test_counting_does_not_change_training_mode():
    model = build_student(UNetSpec(width=4, depth=2, convs_per_stage=1, conv="standard")).train()
    count(model, square(32))
    assert model.training
