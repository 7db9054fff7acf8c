"""Cuts a student's first weights from those of a wider student of its kind."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdsearch.models.contract import normalise
from kdsearch.models.unet import UNet

BATCH = 64
"""Most images at a time on which batch norms are measured."""


@torch.no_grad()
def inherit(student: UNet, donor: UNet, grey: Tensor) -> None:
    """Gives the student the donor's channels of the largest L1 norms (Li et al. 2017), layer by layer.

    Batch norms' statistics are measured anew on images N×H×W, of what comes through the channels that are left.
    """
    kept = [torch.zeros(1, dtype=torch.long, device=grey.device)]
    for mine, theirs in zip(_stages(student.encoder), _stages(donor.encoder), strict=True):
        kept.append(_cut(mine, theirs, kept[-1]))
    skips, deep = kept[1:-1], kept[-1]
    widths = list(donor.map_channels.values())[:0:-1]
    stages = zip(_stages(student.decoder), _stages(donor.decoder), strict=True)
    for (mine, theirs), skip, width in zip(stages, reversed(skips), widths, strict=True):
        deep = _cut(mine, theirs, torch.cat([deep, skip + width]))  # the skip's channels lie behind the deep ones
    student.head.weight.copy_(donor.head.weight[:, deep])
    assert student.head.bias is not None, "a U-Net's head has one"
    assert donor.head.bias is not None, "likewise"
    student.head.bias.copy_(donor.head.bias)
    _measure(student, grey)


def _stages(parts: nn.ModuleList) -> list[nn.Sequential]:
    return [part for part in parts if isinstance(part, nn.Sequential)]


def _cut(mine: nn.Sequential, theirs: nn.Sequential, kept: Tensor) -> Tensor:
    """Fills one stage from the donor's, whose inputs are ``kept``; returns which of its outputs are."""
    for layer, donor in zip(mine, theirs, strict=True):
        if isinstance(layer, nn.BatchNorm2d):
            assert isinstance(donor, nn.BatchNorm2d)
            layer.weight.copy_(donor.weight[kept])
            layer.bias.copy_(donor.bias[kept])
        elif isinstance(layer, nn.Conv2d):
            assert isinstance(donor, nn.Conv2d)
            if layer.groups == layer.in_channels == layer.out_channels:
                layer.weight.copy_(donor.weight[kept])
                continue
            norms = donor.weight[:, kept].abs().sum(dim=(1, 2, 3))
            chosen = norms.topk(layer.out_channels).indices.sort().values
            layer.weight.copy_(donor.weight[chosen][:, kept])
            kept = chosen
    return kept


def _measure(student: UNet, grey: Tensor) -> None:
    """Gives batch norms the plain mean of the batches' statistics."""
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    student.train()
    for part in grey.tensor_split(math.ceil(len(grey) / BATCH)):  # of one size, since each counts alike
        student(normalise(part))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
