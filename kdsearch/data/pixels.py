"""Decodes image and mask files of every mode met in published sets into grey values and lesion pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from kdsearch.errors import DataError

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 100_000_000
WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
"""The brightest value of so many bits."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_UNREADABLE = (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError)


def read_grey(path: Path, *, white: float | None = None) -> Pixels:
    """The image as H×W grey values 0-255; transparency shows black.

    ``white`` is what becomes 255 in an image of more than 8 bits; None takes the least usual depth that holds this
    image's brightest pixel. Raises DataError where the file cannot be decoded.
    """
    return np.asarray(_opaque_grey(path, white))


def grey_of(image: Image.Image, *, white: float | None = None) -> Pixels:
    """An opened image as ``read_grey`` gives it; raises DataError where it cannot be decoded."""
    try:
        image.load()
        return np.asarray(_to_grey(image, white))
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded as an image ({error})") from error


def read_mask(path: Path, *, shape: tuple[int, int]) -> Pixels:
    """The mask as H×W of 0 and 255.

    Raises DataError where the file cannot be decoded, is not two-valued, or has another size than ``shape`` (H, W).
    """
    grey = np.asarray(_opaque_grey(path))
    if grey.shape != shape:
        raise DataError(f"mask is {grey.shape[1]}×{grey.shape[0]} pixels, its image {shape[1]}×{shape[0]}")
    values = np.unique(grey)
    if len(values) > 2:
        raise DataError(f"mask has {len(values)} grey values, must have two")
    background = values[0] if len(values) == 2 else 0
    return np.where(grey > background, np.uint8(255), np.uint8(0))


def resize_image(image: Pixels, size: int) -> Pixels:
    """The image at ``size``×``size``, averaged over the pixels that fall together."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def resize_mask(mask: Pixels, size: int) -> Pixels:
    """The mask at ``size``×``size``: 255 where more than half of the pixel is lesion."""
    shares = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.BILINEAR))
    return np.where(shares >= 128, np.uint8(255), np.uint8(0))


def white_of(paths: Iterable[Path]) -> float | None:
    """What is white in a set of images of more than 8 bits: the least usual depth that holds all of their pixels.

    None where none has more than 8 bits. Files that cannot be decoded are passed over.
    """
    whites = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if _is_deep(image) and image.width * image.height <= MAX_PIXELS:
                    whites.append(_white(np.asarray(image)))
        except _UNREADABLE:
            continue
    return max(whites, default=None)


def _opaque_grey(path: Path, white: float | None = None) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}")
            image.load()
            return _to_grey(image, white)
    except FileNotFoundError:
        raise DataError("no such file") from None
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded as an image ({error})") from error


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _to_grey(image: Image.Image, white: float | None) -> Image.Image:
    if _is_deep(image):
        values = np.asarray(image)
        deep = np.nan_to_num(values.astype(np.float64))
        return Image.fromarray(np.clip(deep * (255.0 / (white or _white(values))), 0, 255).round().astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("L")
    return image.convert("RGB").convert("L")


def _white(values: npt.NDArray[np.generic]) -> float:
    """The least of the usual depths that holds the brightest pixel: files do not say that theirs is 12 bits.

    Fractions are of one.
    """
    brightest = float(np.nan_to_num(values.astype(np.float64)).max(initial=0.0))
    fractions = np.issubdtype(values.dtype, np.floating) and brightest <= 1
    return 1.0 if fractions else float(next((white for white in WHITES if brightest <= white), brightest))
