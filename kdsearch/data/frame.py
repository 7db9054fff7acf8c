"""Fits images and masks into a study's image size, and brings logits back to the image's own size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.config.task import IGNORED
from kdsearch.data.pixels import Pixels, Singles

Shape: TypeAlias = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The size that all images of a study are brought to."""

    height: int
    width: int
    pads: bool = False
    """Whether images keep their aspect ratio and are padded with black, rather than stretched."""

    @classmethod
    def of(cls, config: DataConfig) -> Frame:
        """The frame of a study's images."""
        height, width = config.shape
        return cls(height=height, width=width, pads=config.fit == "pad")

    def box(self, shape: Shape) -> tuple[slice, slice]:
        """Returns the rows and columns that an image of this shape fills."""
        if not self.pads:
            return slice(0, self.height), slice(0, self.width)
        scale = min(self.height / shape[0], self.width / shape[1])
        height, width = (max(1, round(side * scale)) for side in shape)
        top, left = (self.height - height) // 2, (self.width - width) // 2
        return slice(top, top + height), slice(left, left + width)

    def image(self, image: Pixels) -> Pixels:
        """Resizes an image H×W or H×W×3, with antialiasing."""
        return np.asarray(self._placed(image, Image.Resampling.BILINEAR, around=0), dtype=np.uint8)

    def mask(self, mask: Pixels) -> Pixels:
        """Resizes class numbers H×W: each pixel gets the class with the largest share; padding is ignored."""
        rows, columns = self.box(mask.shape)
        small = _largest_shares(mask, (rows.stop - rows.start, columns.stop - columns.start))
        if small.shape == (self.height, self.width):
            return small
        whole = np.full((self.height, self.width), IGNORED, dtype=np.uint8)
        whole[rows, columns] = small
        return whole

    def lost(self, mask: Pixels, small: Pixels) -> list[int]:
        """Lists the classes that ``mask`` has and ``small``, the resized mask, lacks."""
        return sorted(set(classes_in(mask)) - set(classes_in(small)))

    def one_pixel(self, mask: Pixels, number: int) -> tuple[int, int]:
        """Returns row and column of the pixel with the largest share of a class."""
        share = (mask == number).astype(np.float32)
        shares = self._placed(share, Image.Resampling.BILINEAR, around=-1)
        row, column = np.unravel_index(shares.argmax(), shares.shape)
        return int(row), int(column)

    def logits(self, logits: Singles, shape: Shape) -> Singles:
        """Resizes logits K×H×W to an image's own shape K×h×w, bilinearly, without the padding."""
        rows, columns = self.box(shape)
        resized = (
            Image.fromarray(np.ascontiguousarray(one[rows, columns])).resize(
                (shape[1], shape[0]), Image.Resampling.BILINEAR
            )
            for one in logits
        )
        return np.stack([np.asarray(one, dtype=np.float32) for one in resized])

    def _placed(self, image: npt.NDArray[np.generic], how: Image.Resampling, *, around: int) -> npt.NDArray[np.generic]:
        rows, columns = self.box((image.shape[0], image.shape[1]))
        size = columns.stop - columns.start, rows.stop - rows.start
        small = np.asarray(Image.fromarray(image).resize(size, how))
        if small.shape[:2] == (self.height, self.width):
            return small
        whole = np.full((self.height, self.width, *small.shape[2:]), around, dtype=small.dtype)
        whole[rows, columns] = small
        return whole


def classes_in(mask: Pixels) -> list[int]:
    """Lists the classes of a mask other than the background."""
    return [number for number in np.unique(mask).tolist() if number not in (0, IGNORED)]


def _largest_shares(mask: Pixels, shape: Shape) -> Pixels:
    """Resizes class numbers; of equal shares, the higher number wins."""
    numbers = np.unique(mask)
    if len(numbers) == 1:
        return np.full(shape, numbers[0], dtype=np.uint8)
    if len(numbers) == 2:
        inside = _share(mask == numbers[1], shape) >= 128
        return np.asarray(np.where(inside, numbers[1], numbers[0]), dtype=np.uint8)
    shares = np.stack([_share(mask == number, shape) for number in numbers[::-1]])
    return np.asarray(numbers[::-1][shares.argmax(axis=0)], dtype=np.uint8)


def _share(inside: npt.NDArray[np.bool_], shape: Shape) -> Pixels:
    """Computes which part of each pixel is inside, 0-255."""
    whole = Image.fromarray(inside.astype(np.uint8) * np.uint8(255))
    return np.asarray(whole.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def merged(masks: Iterable[Pixels], shape: Shape) -> Pixels:
    """Merges masks H×W of one image: later classes cover earlier ones, and ignored pixels cover only background."""
    found: Pixels = np.zeros(shape, dtype=np.uint8)
    for mask in masks:
        covers = (mask != 0) & ((mask != IGNORED) | (found == 0))
        found = np.where(covers, mask, found)
    return found
