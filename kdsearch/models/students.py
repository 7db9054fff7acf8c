"""Builds students of every family."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from kdsearch.config.networks import FamilyName, StudentSpec
from kdsearch.models.encoders import seeded
from kdsearch.models.timm_student import TimmStudent
from kdsearch.models.unet import UNet

StudentNetwork: TypeAlias = UNet | TimmStudent
"""A student of one of the families."""

NETWORKS: dict[FamilyName, Callable[..., StudentNetwork]] = {"unet": UNet, "timm": TimmStudent}
"""The class of each family's networks; it takes the family's spec, and the channels of images and logits."""


def build_student(
    spec: StudentSpec,
    *,
    channels: int = 1,
    outputs: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    begun: bool = True,
) -> StudentNetwork:
    """Builds a student with its initial weights: pretrained if the spec names some, otherwise drawn from the seed.

    ``channels`` and ``outputs`` are those of ``Task``.

    With ``begun=False`` the weights are undefined and must be loaded; on the meta device there are only
    shapes. The memory format is channels-last, in which small convolutions train faster on a CPU. Raises
    EncoderError if an encoder or its weights are unavailable.
    """
    place = torch.device("meta" if torch.device(device).type == "meta" else "cpu")
    with place, seeded(seed), torch.inference_mode(mode=False):
        network = NETWORKS[spec.family](spec, channels=channels, outputs=outputs)
    if place.type == "meta":
        return network
    if begun:
        network.begin(seed)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations
    return network.to(device)
