"""Builds students of any family."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from kdsearch.config.networks import FamilyName, StudentSpec
from kdsearch.models.encoders import seeded
from kdsearch.models.timm_student import TimmStudent
from kdsearch.models.unet import UNet

StudentNetwork: TypeAlias = UNet | TimmStudent
"""A student of any family."""

NETWORKS: dict[FamilyName, Callable[..., StudentNetwork]] = {"unet": UNet, "timm": TimmStudent}
"""The network of each family; it takes the family's spec and ``classes``."""


def build_student(
    spec: StudentSpec,
    *,
    classes: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    begun: bool = True,
) -> StudentNetwork:
    """The student with the weights that its training begins with, drawn from the seed but for pretrained ones.

    With ``begun=False`` its weights are to be loaded, and mean nothing; on the meta device it has shapes alone. Its
    memory format is channels-last, in which the small convolutions of a student train faster on a processor. Raises
    EncoderError where an encoder or its weights cannot be had.
    """
    place = torch.device("meta" if torch.device(device).type == "meta" else "cpu")
    with place, seeded(seed), torch.inference_mode(mode=False):
        network = NETWORKS[spec.family](spec, classes=classes)
    if place.type == "meta":
        return network
    if begun:
        network.begin(seed)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations
    return network.to(device)
