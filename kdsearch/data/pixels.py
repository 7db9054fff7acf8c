"""Decodes image and mask files of every mode met in published sets into grey values and lesion pixels."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from kdsearch.errors import DataError

Pixels = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]

MAX_PIXELS = 100_000_000
WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
"""The brightest value of so many bits."""
MOST_OF_A_FRACTION = 1.1
"""Resampling overshoots a little."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_UNREADABLE = (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image file, not decoded yet, and without Pillow's warning of large ones: ``MAX_PIXELS`` is the limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path)
    with image:
        yield image


def read_grey(path: Path, *, whites: Sequence[float] = ()) -> Pixels:
    """The image as H×W grey values 0-255; transparency shows black.

    In an image of more than 8 bits, the least of the ``whites`` that holds its brightest pixel becomes 255; without
    any, the least usual depth does. Raises DataError where the file cannot be decoded.
    """
    return np.asarray(_opaque_grey(path, whites))


def grey_of(image: Image.Image, *, whites: Sequence[float] = ()) -> Pixels:
    """An opened image as ``read_grey`` gives it; raises DataError where it cannot be decoded."""
    try:
        image.load()
        return np.asarray(_to_grey(image, whites))
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


def resize_logits(logits: Singles, *, height: int, width: int) -> Singles:
    """H×W logits from S×S, bilinear."""
    image = Image.fromarray(logits).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)


def resize_image(image: Pixels, size: int) -> Pixels:
    """The image at ``size``×``size``, averaged over the pixels that fall together."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def resize_mask(mask: Pixels, size: int) -> Pixels:
    """The mask at ``size``×``size``: 255 where more than half of the pixel is lesion."""
    shares = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.BILINEAR))
    return np.where(shares >= 128, np.uint8(255), np.uint8(0))


def white_of(paths: Iterable[Path], *, bits: int | None) -> float | None:
    """What is white in a source's images of more than 8 bits: by its ``bits``, or the least depth that holds them all.

    None where none has more than 8 bits. Files that cannot be decoded are passed over. Raises DataError where some hold
    fractions and others whole numbers, or fractions are to have a number of bits.
    """
    fractions: dict[bool, float] = {}
    for path in paths:
        try:
            with opened(path) as image:
                if _is_deep(image) and image.width * image.height <= MAX_PIXELS:
                    values = np.nan_to_num(np.asarray(image).astype(np.float64))
                    kind = image.mode == "F" and values.max(initial=0.0) <= MOST_OF_A_FRACTION
                    fractions[kind] = max(fractions.get(kind, 0.0), float(values.max(initial=0.0)))
        except _UNREADABLE:
            continue
    if len(fractions) > 1:
        raise DataError(
            "data.sources: some of its images hold fractions of one, others whole numbers; make them alike, or name "
            "them as two sources"
        )
    if True in fractions:
        if bits is not None:
            raise DataError(f"data.sources.bits: {bits} is for whole numbers, but its images hold fractions; remove it")
        return 1.0
    if bits is not None:
        return 2.0**bits - 1
    return _depth(fractions[False]) if fractions else None


def _opaque_grey(path: Path, whites: Sequence[float] = ()) -> Image.Image:
    try:
        with opened(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}")
            image.load()
            return _to_grey(image, whites)
    except FileNotFoundError:
        raise DataError("no such file") from None
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded as an image ({error})") from error


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _to_grey(image: Image.Image, whites: Sequence[float]) -> Image.Image:
    if _is_deep(image):
        deep = np.nan_to_num(np.asarray(image).astype(np.float64))
        white = _white(deep, whites, fractions=image.mode == "F")
        return Image.fromarray(np.clip(deep * (255.0 / white), 0, 255).round().astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("L")
    return image.convert("RGB").convert("L")


def _white(values: npt.NDArray[np.float64], whites: Sequence[float], *, fractions: bool) -> float:
    """The least of the ``whites`` that holds the brightest value, else their largest; without any, a usual depth.

    Raises DataError for fractions of one among whole numbers and the reverse, which would be all black or all white.
    """
    brightest = float(values.max(initial=0.0))
    if whites:
        _require_alike(values, brightest, whites, fractions=fractions)
        return next((white for white in sorted(whites) if brightest <= white), max(whites))
    return 1.0 if fractions and brightest <= MOST_OF_A_FRACTION else _depth(brightest)


def _require_alike(
    values: npt.NDArray[np.float64], brightest: float, whites: Sequence[float], *, fractions: bool
) -> None:
    of_one = fractions and brightest <= MOST_OF_A_FRACTION and not np.array_equal(values, values.round())
    if of_one and 1.0 not in whites:
        raise DataError(
            f"holds fractions of one, where whole numbers up to {max(whites):g} are expected; save it with "
            f"{max(whites):g} as white"
        )
    if set(whites) == {1.0} and brightest > MOST_OF_A_FRACTION:
        raise DataError(
            f"holds values up to {brightest:g}, where fractions of one are expected; divide them by the value of white"
        )


def _depth(brightest: float) -> float:
    """The least of the usual depths that holds it: files do not say that theirs is 12 bits."""
    return float(next((white for white in WHITES if brightest <= white), brightest))
