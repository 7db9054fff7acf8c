"""Which device networks are trained on."""

from __future__ import annotations

import torch

from kdsearch.config.study import Device
from kdsearch.errors import KdsearchError


def choose_device(wanted: Device) -> torch.device:
    """``auto`` is CUDA, then MPS, then the CPU; raises KdsearchError for one that is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[wanted]:
        there = ", ".join(name for name, found in available.items() if found)
        raise KdsearchError(f"device: {wanted} is not available to torch {torch.__version__}; there is: {there}")
    return torch.device(wanted)
