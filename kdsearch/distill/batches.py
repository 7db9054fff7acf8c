"""Images on a device, and random augmentation of images, masks and teacher logits together."""

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
from kdsearch.models.contract import GRAY_MEAN, GRAY_STD


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Some images of a data set, on a device."""

    gray: Tensor
    """N×H×W uint8."""
    masks: Tensor
    """N×H×W uint8, 255 inside a lesion."""
    sources: tuple[str, ...]
    """The source of each image."""

    def __len__(self) -> int:
        return len(self.gray)

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.gray.shape[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledGray:
    """Images without masks, on a device."""

    gray: Tensor
    """N×H×W uint8."""
    fraction: float
    """Fraction of each batch that is drawn from these images, from 0 to 1."""
    teacher_logits: Tensor | None = None
    """N×C×H×W in half precision; None if no term needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The images that a network is trained and validated on, with the teacher's logits."""

    train: Images
    validation: Images
    teacher_logits: Tensor | None = None
    """N×C×H×W for the training images, in half precision; None if no term needs them."""
    unlabelled: UnlabelledGray | None = None
    """Images for which the teacher's prediction is the only target; None if there are none."""
    left_out: Tensor | None = None
    """N: the ensemble member that was not trained on each image; None if there are no such members or no term needs
    them."""

    @property
    def device(self) -> torch.device:
        """The device that holds the images."""
        return self.train.gray.device


def training_data(
    dataset: Dataset, splits: Splits, device: torch.device, unlabelled: UnlabelledPart | None = None
) -> TrainingData:
    """Loads the training, validation and unlabelled images, but never the test images, onto the device."""
    more = None
    if unlabelled is not None:
        gray = torch.from_numpy(unlabelled.whole.images[np.asarray(unlabelled.positions)]).to(device)
        more = UnlabelledGray(gray=gray, fraction=unlabelled.fraction)
    return TrainingData(
        train=images_at(dataset, splits.train, device),
        validation=images_at(dataset, splits.validation, device),
        unlabelled=more,
    )


def images_at(dataset: Dataset, positions: tuple[int, ...], device: torch.device) -> Images:
    """Loads the images at these positions of the data set onto the device."""
    chosen = np.asarray(positions)
    return Images(
        gray=torch.from_numpy(dataset.images[chosen]).to(device),
        masks=torch.from_numpy(dataset.masks[chosen]).to(device),
        sources=tuple(dataset.infos[position].source for position in positions),
    )


def choose_device(wanted: Device) -> torch.device:
    """Returns the device; ``auto`` prefers CUDA, then MPS. Raises KdsearchError if the device is not available."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, found in available.items() if found))
    if not available[wanted]:
        usable = ", ".join(name for name, found in available.items() if found)
        raise KdsearchError(f"device: torch {torch.__version__} cannot use {wanted}; available: {usable}")
    return torch.device(wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The input of one training step."""

    image: Tensor
    """N×1×H×W, normalized: the strong view."""
    weak: Tensor
    """N×1×H×W: the weak view, which has no noise and no dropout."""
    target: Tensor
    """N×H×W class numbers, warped with the image."""
    teacher_logits: Tensor | None = None
    """N×C×H×W, cached and warped with the image; None if no term needs them."""
    labelled: int | None = None
    """Number of images with a mask, which come first; None if all have one. The target of the others is meaningless."""
    left_out: Tensor | None = None
    """N: the ensemble member that was not trained on each image, -1 if no member was; None if the teacher has no such
    members."""

    @property
    def known_target(self) -> Tensor:
        """The targets of the images that have a mask."""
        return self.target[: self.labelled]

    def followed_by(self, more: Batch) -> Batch:
        """Appends images without masks to a batch in which every image has one."""
        logits = left_out = None
        if self.teacher_logits is not None:
            assert more.teacher_logits is not None, "both parts have teacher logits"
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
    """Augments gray images and masks, both N×H×W uint8, with a separate random transform for each image.

    Crop, shift, scale, rotation and flip move the image, its mask and its teacher logits together; noise and dropout
    change only the image. Images are mirrored at the border. The same generator state gives the same batch.
    """
    theta = random_affine(len(images), spec, generator).to(images.device)
    layers = [images.unsqueeze(1).float() / 255, masks.unsqueeze(1).float() / 255]
    if logits is not None:
        layers.append(logits.float())
    warped = warp(torch.cat(layers, dim=1), theta)
    weak = warped[:, :1]
    strong = _add_noise(weak, spec, generator)
    return Batch(
        image=(strong - GRAY_MEAN) / GRAY_STD,
        weak=(weak - GRAY_MEAN) / GRAY_STD,
        target=(warped[:, 1] > 0.5).long(),
        teacher_logits=None if logits is None else warped[:, 2:],
    )


def random_affine(count: int, spec: AugmentationSpec, generator: torch.Generator) -> Tensor:
    """Draws N×2×3 matrices that map output to input coordinates, both in [-1, 1]."""

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
    """Warps maps N×K×h×w of any resolution by N×2×3 matrices, with mirrored borders."""
    grid = functional.affine_grid(theta, list(maps.shape), align_corners=False)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _add_noise(gray: Tensor, spec: AugmentationSpec, generator: torch.Generator) -> Tensor:
    device = generator.device
    share = torch.rand(len(gray), 2, 1, 1, 1, generator=generator, device=device)
    if spec.noise:
        noise = torch.randn(gray.shape, generator=generator, device=device)
        gray = (gray + (noise * share[:, 0] * spec.noise).to(gray.device)).clamp(0, 1)
    if spec.dropout:
        kept = torch.rand(gray.shape, generator=generator, device=device) >= share[:, 1] * spec.dropout
        gray = gray * kept.to(gray.device)
    return gray
