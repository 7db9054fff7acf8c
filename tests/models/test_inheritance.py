"""Weights cut from a wider student."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdsearch.config.networks import UNetSpec
from kdsearch.models.contract import normalize
from kdsearch.models.students import build_student
from kdsearch.models.unet import inherit

GRAY = torch.randint(0, 256, (64, 32, 32), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def _spec(width=4, **changes) -> UNetSpec:
    return UNetSpec(**{"width": width, "depth": 2, "growth": 1.5} | changes)


@pytest.mark.parametrize("convs_per_stage", [1, 2])
@pytest.mark.parametrize("conv", ["standard", "separable"])
def test_channels_that_are_zero_are_the_ones_dropped(convs_per_stage, conv):
    """A narrow student, hidden in a wider one whose other channels are zero, is recovered bit for bit."""
    kind = {"convs_per_stage": convs_per_stage, "conv": conv}
    narrow, found = (build_student(_spec(3, **kind), seed=seed) for seed in (1, 2))
    wide = _hidden_in(narrow, _spec(8, **kind))
    inherit(found, wide, GRAY[:, None])
    expected = dict(narrow.named_parameters())
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_batch_norm_statistics_are_remeasured_after_dropping_channels():
    student, donor = build_student(_spec(4), seed=0), build_student(_spec(8), seed=1)
    inherit(student, donor, GRAY[:, None])
    with torch.no_grad():
        measured, own = (student.train(mode)(normalize(GRAY)) for mode in (False, True))
    torch.testing.assert_close(measured, own, rtol=0.05, atol=0.05)
    assert all(norm.momentum == 0.1 for norm in student.modules() if isinstance(norm, nn.BatchNorm2d))


@pytest.mark.parametrize("count", [65, 129])
def test_batch_norm_statistics_weigh_all_images_equally(count):
    """One image beyond the last full batch counts once, and is never a batch of its own."""
    gray = torch.randint(0, 100, (count, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    gray[-1] = 255
    deep = {"depth": 4, "growth": 1}
    student, donor = build_student(_spec(4, **deep), seed=0), build_student(_spec(8, **deep), seed=1)
    inherit(student, donor, gray[:, None])
    convolution, norm = student.encoder[0][0], student.encoder[0][1]
    with torch.no_grad():
        expected = convolution(normalize(gray)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean, expected, rtol=0.02, atol=0.02)


def test_donor_is_not_modified():
    student, donor = build_student(_spec(4), seed=0), build_student(_spec(8), seed=1)
    before = {name: tensor.clone() for name, tensor in donor.state_dict().items()}
    inherit(student, donor, GRAY[:, None])
    assert all(torch.equal(tensor, before[name]) for name, tensor in donor.state_dict().items())


@torch.no_grad()
def _hidden_in(narrow, spec):
    """A wider U-Net that contains the narrow one in some channels and zeros in the others."""
    wide = build_student(spec, seed=0)
    for parameter in wide.parameters():
        parameter.zero_()
    places = [torch.zeros(1, dtype=torch.long)]
    for small, large in zip(narrow.encoder, wide.encoder, strict=True):
        places.append(_hide(small, large, places[-1]))
    deep, width = places[-1], list(wide.map_channels.values())[::-1]
    for index, (small, large) in enumerate(zip(narrow.decoder, wide.decoder, strict=True)):
        deep = _hide(small, large, torch.cat([deep, places[-2 - index] + width[index]]))
    wide.head.weight[:, deep] = narrow.head.weight
    wide.head.bias.copy_(narrow.head.bias)
    return wide


def _hide(small, large, before):
    for layer, into in zip(small, large, strict=True):
        if isinstance(layer, nn.BatchNorm2d):
            into.weight[before], into.bias[before] = layer.weight, layer.bias
        elif isinstance(layer, nn.Conv2d) and layer.groups > 1:
            into.weight[before] = layer.weight
        elif isinstance(layer, nn.Conv2d) and layer.in_channels == layer.out_channels == 1:
            into.weight.copy_(layer.weight)
        elif isinstance(layer, nn.Conv2d):
            after = torch.arange(into.out_channels)[1::2][: layer.out_channels]
            into.weight[after[:, None], before[None]] = layer.weight
            before = after
    return before
