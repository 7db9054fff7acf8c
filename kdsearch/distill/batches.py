"""Images on a device, and random augmentation of images, masks and teacher logits together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kdsearch.config.study import Device
from kdsearch.config.task import IGNORED, Task
from kdsearch.config.training import COLOR_CHANGE, AugmentationSpec
from kdsearch.data.dataset import Boxes, Dataset, Splits, UnlabelledPart
from kdsearch.errors import KdsearchError
from kdsearch.models.contract import INPUT_MEAN, INPUT_STD


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Some images of a data set, on a device."""

    pixels: Tensor
    """N×C×H×W uint8."""
    masks: Tensor
    """N×H×W uint8: class numbers, or ``IGNORED``."""
    sources: tuple[str, ...]
    """The source of each image."""
    classes: tuple[str, ...] = ()
    """Names of the classes other than the background, if there are several."""
    ignores: bool = False
    """Whether some pixels of the masks do not count."""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def is_binary(self) -> bool:
        """Whether masks have only the classes 0 and 1, and all pixels count."""
        return not self.classes and not self.ignores

    def target(self) -> tuple[Tensor, Tensor | None]:
        """Returns class numbers N×H×W, and as in ``Batch`` which pixels count."""
        if not self.ignores:
            return self.masks.long(), None
        counts = self.masks != IGNORED
        return (self.masks * counts).long(), counts.unsqueeze(1).float()

    @property
    def task(self) -> Task:
        """The shapes of the input and output of networks for these images."""
        _, channels, height, width = self.pixels.shape
        outputs = len(self.classes) + 1 if self.classes else 1
        return Task(height=height, width=width, channels=channels, outputs=outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledPixels:
    """Images without masks, on a device."""

    pixels: Tensor
    """N×C×H×W uint8."""
    fraction: float
    """Fraction of each batch that is drawn from these images, from 0 to 1."""
    teacher_logits: Tensor | None = None
    """N×K×H×W in half precision; None if no term needs them."""
    padding: Tensor | None = None
    """N×H×W uint8, ``IGNORED`` in the padding and otherwise 0; None if there is no padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The images that a network is trained and validated on, with the teacher's logits."""

    train: Images
    validation: Images
    teacher_logits: Tensor | None = None
    """N×K×H×W for the training images, in half precision; None if no term needs them."""
    unlabelled: UnlabelledPixels | None = None
    """Images for which the teacher's prediction is the only target; None if there are none."""
    left_out: Tensor | None = None
    """N: the ensemble member that was not trained on each image; None if there are no such members or no term needs
    them."""

    @property
    def device(self) -> torch.device:
        """The device that holds the images."""
        return self.train.pixels.device


def training_data(
    dataset: Dataset, splits: Splits, device: torch.device, unlabelled: UnlabelledPart | None = None
) -> TrainingData:
    """Loads the training, validation and unlabelled images, but never the test images, onto the device."""
    more = None
    if unlabelled is not None:
        chosen = np.asarray(unlabelled.positions)
        pixels = torch.from_numpy(unlabelled.whole.images[chosen]).to(device)
        boxes = unlabelled.whole.boxes
        padding = None if boxes is None else _padding(boxes[chosen], pixels.shape[-2:]).to(device)
        more = UnlabelledPixels(pixels=pixels, fraction=unlabelled.fraction, padding=padding)
    return TrainingData(
        train=images_at(dataset, splits.train, device),
        validation=images_at(dataset, splits.validation, device),
        unlabelled=more,
    )


def images_at(dataset: Dataset, positions: tuple[int, ...], device: torch.device) -> Images:
    """Loads the images at these positions of the data set onto the device."""
    chosen = np.asarray(positions)
    return Images(
        pixels=torch.from_numpy(dataset.images[chosen]).to(device),
        masks=torch.from_numpy(dataset.masks[chosen]).to(device),
        sources=tuple(dataset.infos[position].source for position in positions),
        classes=dataset.classes,
        ignores=dataset.ignores,
    )


def _padding(boxes: Boxes, size: Sequence[int]) -> Tensor:
    found = torch.full((len(boxes), *size), IGNORED, dtype=torch.uint8)
    for place, (top, left, bottom, right) in enumerate(boxes.tolist()):
        found[place, top:bottom, left:right] = 0
    return found


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
    """N×C×H×W, normalized: the strong view."""
    weak: Tensor
    """N×C×H×W: the weak view, which has no noise and no dropout."""
    target: Tensor
    """N×H×W class numbers, warped with the image; 0 in pixels that do not count."""
    counts: Tensor | None = None
    """N×1×H×W, 1 for pixels that count and 0 for others; None if all count."""
    teacher_logits: Tensor | None = None
    """N×K×H×W, cached and warped with the image; None if no term needs them."""
    labelled: int | None = None
    """Number of images with a mask, which come first; None if all have one. The target of the others is meaningless."""
    left_out: Tensor | None = None
    """N: the ensemble member that was not trained on each image, -1 if no member was; None if the teacher has no such
    members."""

    @property
    def known_target(self) -> Tensor:
        """The targets of the images that have a mask."""
        return self.target[: self.labelled]

    @property
    def known_counts(self) -> Tensor | None:
        """Which pixels count in the images that have a mask; None if all do."""
        return None if self.counts is None else self.counts[: self.labelled]

    def followed_by(self, more: Batch) -> Batch:
        """Appends images without masks to a batch in which every image has one."""
        logits = left_out = None
        if self.teacher_logits is not None:
            assert more.teacher_logits is not None, "both parts have teacher logits"
            logits = torch.cat([self.teacher_logits, more.teacher_logits])
        if self.left_out is not None:
            left_out = torch.cat([self.left_out, self.left_out.new_full((len(more.image),), -1)])
        counts = None
        if self.counts is not None or more.counts is not None:
            both = [torch.ones_like(one.image[:, :1]) if one.counts is None else one.counts for one in (self, more)]
            counts = torch.cat(both)
        return Batch(
            counts=counts,
            image=torch.cat([self.image, more.image]),
            weak=torch.cat([self.weak, more.weak]),
            target=torch.cat([self.target, more.target]),
            teacher_logits=logits,
            labelled=len(self.image),
            left_out=left_out,
        )


def strong_view(
    images: Tensor,
    masks: Tensor,
    logits: Tensor | None,
    *,
    spec: AugmentationSpec,
    generator: torch.Generator,
    binary: bool = True,
) -> Batch:
    """Augments images N×C×H×W and masks N×H×W, both uint8, with a separate random transform for each image.

    Crop, shift, scale, rotation and flip move the image, its mask and its teacher logits together; brightness,
    contrast, saturation, noise and dropout change only the image. Images are mirrored at the border. ``binary`` masks
    have only the classes 0 and 1. The same generator state gives the same batch.
    """
    channels = images.shape[1]
    theta = random_affine(len(images), spec, generator).to(images.device)
    layers = [images.float() / 255]
    if binary:
        layers.append(masks.unsqueeze(1).float())
    if logits is not None:
        layers.append(logits.float())
    warped = warp(torch.cat(layers, dim=1), theta)
    weak = warped[:, :channels]
    strong = _add_noise(_changed_colors(weak, spec, generator), spec, generator)
    counts = None
    if binary:
        target = (warped[:, channels] > 0.5).long()
    else:
        numbers = warp(masks.unsqueeze(1).float(), theta, mode="nearest")
        counts = (numbers != IGNORED).float()
        target = (numbers * counts)[:, 0].long()
    return Batch(
        image=(strong - INPUT_MEAN) / INPUT_STD,
        weak=(weak - INPUT_MEAN) / INPUT_STD,
        target=target,
        counts=counts,
        teacher_logits=None if logits is None else warped[:, channels + binary :],
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


def warp(maps: Tensor, theta: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Warps maps N×K×h×w of any resolution by N×2×3 matrices, with mirrored borders."""
    grid = functional.affine_grid(theta, list(maps.shape), align_corners=False)
    return functional.grid_sample(maps, grid, mode=mode, padding_mode="reflection", align_corners=False)


LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in a gray value (ITU-R 601-2)."""


def _changed_colors(images: Tensor, spec: AugmentationSpec, generator: torch.Generator) -> Tensor:
    """Changes brightness, contrast and saturation of each image by random factors."""
    color = images.shape[1] == 3
    usual = COLOR_CHANGE if color else 0.0
    brightness, contrast, saturation = (
        usual if given is None else given for given in (spec.brightness, spec.contrast, spec.saturation)
    )

    def factors(most: float) -> Tensor:
        drawn = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
        return (1 + most * (2 * drawn - 1)).to(images.device)

    if brightness:
        images = images * factors(brightness)
    if contrast:
        middle = images.mean(dim=(1, 2, 3), keepdim=True)
        images = middle + (images - middle) * factors(contrast)
    if saturation and color:
        gray = (images * images.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
        images = gray + (images - gray) * factors(saturation)
    return images.clamp(0, 1) if brightness or contrast or (saturation and color) else images


def _add_noise(images: Tensor, spec: AugmentationSpec, generator: torch.Generator) -> Tensor:
    device = generator.device
    share = torch.rand(len(images), 2, 1, 1, 1, generator=generator, device=device)
    if spec.noise:
        noise = torch.randn(images.shape, generator=generator, device=device)
        images = (images + (noise * share[:, 0] * spec.noise).to(images.device)).clamp(0, 1)
    if spec.dropout:
        kept = torch.rand(images[:, :1].shape, generator=generator, device=device) >= share[:, 1] * spec.dropout
        images = images * kept.to(images.device)
    return images
