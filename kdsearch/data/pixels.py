"""Decodes image files of every mode met in published sets into grey values."""

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
OVERSHOOT = 0.1
"""Of the brightest value: how far below 0 resampled values may be."""
LEAST_WHITE = 64
"""Values that are not whole and whose brightest is between 1.1 and this are on no scale of grey values."""
ORIENTATION = 0x0112
"""EXIF's tag for how a picture is turned when it is shown."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_UNREADABLE = (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError)


class AmbiguousError(DataError):
    """A file that can be decoded, but whose values have no clear meaning."""


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
    any, the least usual depth does. Raises DataError if the file cannot be decoded, or holds values below 0.
    """
    return np.asarray(to_grey(decoded(path), whites))


def grey_of(image: Image.Image, *, whites: Sequence[float] = ()) -> Pixels:
    """An opened image as ``read_grey`` gives it; raises DataError where it cannot be decoded."""
    try:
        image.load()
        return np.asarray(to_grey(image, whites))
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded as an image ({error})") from error


def resize_logits(logits: Singles, *, height: int, width: int) -> Singles:
    """H×W logits from S×S, bilinear."""
    image = Image.fromarray(logits).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)


def resize_image(image: Pixels, size: int) -> Pixels:
    """The image at ``size``×``size``, averaged over the pixels that fall together."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def one_pixel(mask: Pixels, size: int) -> Pixels:
    """The mask at ``size``×``size``: 255 in the pixel of which most is lesion."""
    picture = Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    shares = np.asarray(picture)
    small = np.zeros(shares.shape, dtype=np.uint8)
    small[np.unravel_index(shares.argmax(), shares.shape)] = 255
    return small


def resize_mask(mask: Pixels, size: int) -> Pixels:
    """The mask at ``size``×``size``: 255 where more than half of the pixel is lesion."""
    shares = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.BILINEAR))
    return np.where(shares >= 128, np.uint8(255), np.uint8(0))


def white_of(paths: Iterable[Path], *, bits: int | None) -> float | None:
    """What is white in a source's images of more than 8 bits: by its ``bits``, or the least depth that holds them all.

    None where none has more than 8 bits. Files that cannot be decoded are passed over. Raises DataError where some hold
    fractions and others whole numbers, fractions are to have a number of bits, or numbers are on no scale of greys.
    """
    fractions: dict[bool, float] = {}
    such_as: dict[bool, Path] = {}
    uneven: Path | None = None
    for path in paths:
        try:
            with opened(path) as image:
                if is_deep(image) and image.width * image.height <= MAX_PIXELS:
                    values = _deep_values(image)
                    kind = image.mode == "F" and values.max(initial=0.0) <= MOST_OF_A_FRACTION
                    fractions[kind] = max(fractions.get(kind, 0.0), float(values.max(initial=0.0)))
                    such_as.setdefault(kind, path)
                    if uneven is None and not kind and not (values == np.round(values)).all():
                        uneven = path
        except (*_UNREADABLE, AmbiguousError):
            continue
    if len(fractions) > 1:
        raise DataError(
            f"data.sources: some of its images hold fractions of one, such as {such_as[True]}, others whole numbers, "
            f"such as {such_as[False]}; make them alike, or name them as two sources"
        )
    if uneven is not None and fractions[False] < LEAST_WHITE:
        raise DataError(
            f"data.sources: its images hold numbers up to {fractions[False]:g} that are not whole, such as {uneven}; "
            "scale them all alike to fractions 0-1, or to whole numbers such as 0-255"
        )
    if True in fractions:
        if bits is not None:
            raise DataError(f"data.sources.bits: {bits} is for whole numbers, but its images hold fractions; remove it")
        return 1.0
    if bits is not None:
        return 2.0**bits - 1
    return _depth(fractions[False]) if fractions else None


def decoded(path: Path) -> Image.Image:
    """The picture; raises DataError if it cannot be decoded or has more than ``MAX_PIXELS``."""
    try:
        with opened(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}")
            image.load()
            return image
    except FileNotFoundError:
        raise DataError("no such file") from None
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded as an image ({error})") from error


def orientation_of(path: Path) -> int:
    """How EXIF says the picture is turned when it is shown, 1 to 8; 1, not at all, if it says nothing."""
    try:
        with Image.open(path) as image:
            found = image.getexif().get(ORIENTATION, 1)
    except _UNREADABLE:
        return 1
    return found if found in range(1, 9) else 1


def is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def to_grey(image: Image.Image, whites: Sequence[float] = ()) -> Image.Image:
    """The picture in grey values 0-255, as ``read_grey`` gives them; raises AmbiguousError for values below 0."""
    if is_deep(image):
        deep = _deep_values(image)
        white = _white(deep, whites, fractions=image.mode == "F")
        return Image.fromarray(np.clip(deep * (255.0 / white), 0, 255).round().astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    return opaque(image).convert("L")


def opaque(image: Image.Image) -> Image.Image:
    """The picture of 8 bits in red, green and blue; transparency shows black."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")


def _deep_values(image: Image.Image) -> npt.NDArray[np.float64]:
    """The values, 0 for what is not a number; raises AmbiguousError for those that are no grey values."""
    values = np.asarray(image).astype(np.float64)
    if np.isinf(values).any():
        raise AmbiguousError("holds infinite values; replace them, such as by 0")
    values = np.nan_to_num(values)
    least, brightest = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if least < (-OVERSHOOT * brightest if image.mode == "F" else 0):
        raise AmbiguousError(
            f"holds values from {least:g} to {brightest:g}, must hold grey values from 0 up; choose which value is "
            "black and which is white, the same for all images, and save fractions 0-1 or whole numbers"
        )
    return values


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
