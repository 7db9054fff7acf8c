"""Builds students of any family."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import nn

from kdsearch.config.student import StudentSpec
from kdsearch.models.families import FAMILIES
from kdsearch.models.unet import UNet

StudentNetwork: TypeAlias = UNet
"""A student of any family."""


def build_student(
    spec: StudentSpec, *, classes: int = 1, seed: int = 0, device: torch.device | str = "cpu"
) -> StudentNetwork:
    """The student with weights drawn from the seed; on the meta device it has shapes and no weights.

    Its memory format is channels-last, in which the small convolutions of a student train faster on a processor.
    """
    with torch.device("meta"):
        model = FAMILIES[spec.family].network(spec, classes)
    if torch.device(device).type == "meta":
        return model
    model.to_empty(device="cpu")
    initialise(model, torch.Generator().manual_seed(seed))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations
    return model.to(device)


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """He-normal convolutions, neutral batch norms, drawn from the generator (He et al. 2015)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
