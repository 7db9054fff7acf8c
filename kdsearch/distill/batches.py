"""The student's strong view of a batch, and the teacher's logits carried along by the same transform."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kdsearch.config.study import Device
from kdsearch.config.training import AugmentationSpec
from kdsearch.data.dataset import Dataset, Splits, UnlabelledPart
from kdsearch.errors import KdsearchError
from kdsearch.models.contract import GREY_MEAN, GREY_STD


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one training step sees."""

    image: Tensor
    """N×1×H×W, normalised: the strong view."""
    weak: Tensor
    """The same without noise and dropout: the weak view."""
    target: Tensor
    """N×H×W class numbers, warped as the image."""
    teacher_logits: Tensor | None = None
    """N×C×H×W, the teacher's cached logits, warped as the image; None where nothing needs them."""
    labelled: int | None = None
    """How many of the images, the first, have a mask; None for all of them. The others' target means nothing."""
    left_out: Tensor | None = None
    """N: the member of the teacher that did not learn from each image, -1 for all of them; None if the teacher has no
    such members."""

    @property
    def known_target(self) -> Tensor:
        """The target of the images that have a mask."""
        return self.target[: self.labelled]

    def followed_by(self, more: Batch) -> Batch:
        """The batch, all of whose images have a mask, and after it images that have none."""
        logits = left_out = None
        if self.teacher_logits is not None:
            assert more.teacher_logits is not None, "the teacher was asked about both"
            logits = torch.cat([self.teacher_logits, more.teacher_logits])
        if self.left_out is not None:
            left_out = torch.cat([self.left_out, self.left_out.new_full((len(more.image),), -1)])
        return Batch(
            image=torch.cat([self.image, more.image]),
            weak=torch.cat([self.weak, more.weak]),
            target=torch.cat([self.target, more.target]),
            teacher_logits=logits,
            labelled=len(self.image),
            left_out=left_out,
        )


def strong_view(
    images: Tensor, masks: Tensor, logits: Tensor | None, *, spec: AugmentationSpec, generator: torch.Generator
) -> Batch:
    """A batch of grey values and masks, both N×H×W uint8, under a random transform of its own for each image.

    Random crop, shift, scale, rotation and flip move image, mask and teacher's logits together; noise and dropout touch
    the image alone. Outside the image its mirror image is seen. The same generator state gives the same batch.
    """
    theta = random_affine(len(images), spec, generator).to(images.device)
    layers = [images.unsqueeze(1).float() / 255, masks.unsqueeze(1).float() / 255]
    if logits is not None:
        layers.append(logits.float())
    warped = warp(torch.cat(layers, dim=1), theta)
    weak = warped[:, :1]
    strong = _add_noise(weak, spec, generator)
    return Batch(
        image=(strong - GREY_MEAN) / GREY_STD,
        weak=(weak - GREY_MEAN) / GREY_STD,
        target=(warped[:, 1] > 0.5).long(),
        teacher_logits=None if logits is None else warped[:, 2:],
    )


def random_affine(count: int, spec: AugmentationSpec, generator: torch.Generator) -> Tensor:
    """N×2×3 matrices from output to input coordinates, both in [-1, 1]."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)

    kept = uniform(1 - spec.crop, 1)
    zoom = kept / uniform(1 - spec.scale, 1 + spec.scale)
    angle = uniform(-1, 1) * math.radians(spec.rotation_degrees)
    mirror = torch.where(uniform(0, 1) < spec.flip, -1.0, 1.0)
    right, down = (uniform(-1, 1) * (1 - kept) + uniform(-1, 1) * 2 * spec.shift for _ in range(2))
    sine, cosine = zoom * angle.sin(), zoom * angle.cos()
    rows = [torch.stack([mirror * cosine, -sine, right], dim=1), torch.stack([mirror * sine, cosine, down], dim=1)]
    return torch.stack(rows, dim=1)


def warp(maps: Tensor, theta: Tensor) -> Tensor:
    """Maps N×K×h×w of any resolution, moved by N×2×3 matrices; mirrored at the border."""
    grid = functional.affine_grid(theta, list(maps.shape), align_corners=False)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _add_noise(grey: Tensor, spec: AugmentationSpec, generator: torch.Generator) -> Tensor:
    device = generator.device
    share = torch.rand(len(grey), 2, 1, 1, 1, generator=generator, device=device)
    if spec.noise:
        noise = torch.randn(grey.shape, generator=generator, device=device)
        grey = (grey + (noise * share[:, 0] * spec.noise).to(grey.device)).clamp(0, 1)
    if spec.dropout:
        kept = torch.rand(grey.shape, generator=generator, device=device) >= share[:, 1] * spec.dropout
        grey = grey * kept.to(grey.device)
    return grey
