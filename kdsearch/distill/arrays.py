"""The device that networks are trained on, and a split's images on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdsearch.config.study import Device
from kdsearch.data.dataset import Dataset, Splits, UnlabelledPart
from kdsearch.errors import KdsearchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Some images of a data set, on a device."""

    grey: Tensor
    """N×H×W uint8."""
    masks: Tensor
    """N×H×W uint8, 255 inside a lesion."""
    sources: tuple[str, ...]
    """The source of each image."""

    def __len__(self) -> int:
        return len(self.grey)

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.grey.shape[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledGrey:
    """Images without masks, on a device."""

    grey: Tensor
    """N×H×W uint8."""
    fraction: float
    """Of each batch that is drawn from them."""
    teacher_logits: Tensor | None = None
    """N×C×H×W, in half precision; None where nothing needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What a network is trained and judged on."""

    train: Images
    validation: Images
    teacher_logits: Tensor | None = None
    """N×C×H×W, the teacher's of the training images, in half precision; None where nothing needs them."""
    unlabelled: UnlabelledGrey | None = None
    """What is learnt from the teacher alone; None where there is nothing."""
    left_out: Tensor | None = None
    """N: the member of the teacher that did not learn from each training image; None if the teacher has no such
    members, or nothing asks it."""

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train.grey.device


def training_data(
    dataset: Dataset, splits: Splits, device: torch.device, unlabelled: UnlabelledPart | None = None
) -> TrainingData:
    """The training, validation and unlabelled images on the device; the test images are not touched."""
    return TrainingData(
        train=images_at(dataset, splits.train, device),
        validation=images_at(dataset, splits.validation, device),
        unlabelled=None if unlabelled is None else _on(unlabelled, device),
    )


def _on(part: UnlabelledPart, device: torch.device) -> UnlabelledGrey:
    grey = torch.from_numpy(part.whole.images[np.asarray(part.positions)]).to(device)
    return UnlabelledGrey(grey=grey, fraction=part.fraction)


def images_at(dataset: Dataset, positions: tuple[int, ...], device: torch.device) -> Images:
    """The images at those positions of the data set, on the device."""
    chosen = np.asarray(positions)
    return Images(
        grey=torch.from_numpy(dataset.images[chosen]).to(device),
        masks=torch.from_numpy(dataset.masks[chosen]).to(device),
        sources=tuple(dataset.infos[position].source for position in positions),
    )


def choose_device(wanted: Device) -> torch.device:
    """``auto`` is CUDA, then MPS, then the CPU; raises KdsearchError for one that is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[wanted]:
        there = ", ".join(name for name, found in available.items() if found)
        raise KdsearchError(f"device: {wanted} is not available to torch {torch.__version__}; there is: {there}")
    return torch.device(wanted)
