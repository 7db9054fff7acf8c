"""Decodes image files into gray or color values, in every mode found in published data sets."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from kdsearch.data.dicom import is_dicom
from kdsearch.data.dicom_pixels import frame_of
from kdsearch.errors import DataError

Pixels = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]

MAX_PIXELS = 100_000_000
WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
"""The largest values of the usual bit depths."""
MOST_OF_A_FRACTION = 1.1
"""Images up to this value are fractions 0-1; resampling may overshoot 1 a little."""
OVERSHOOT = 0.1
"""Resampled values may be this far below 0, as a fraction of the largest value."""
LEAST_WHITE = 64
"""Fractional values whose maximum is between 1.1 and this are on no known gray scale."""
ORIENTATION = 0x0112
"""EXIF's tag for the orientation."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_UNREADABLE = (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError)


class AmbiguousError(DataError):
    """A file that can be decoded, but whose values have no clear meaning."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Opens an image file without decoding it; ``MAX_PIXELS`` replaces Pillow's warning about large images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path)
    with image:
        yield image


def read_gray(path: Path, *, whites: Sequence[float] = ()) -> Pixels:
    """Reads an image as H×W gray values 0-255; transparency becomes black.

    Images of more than 8 bits are scaled: the smallest of ``whites`` that is at least the brightest pixel
    becomes 255. Default: the smallest usual bit depth. Raises DataError if the file cannot be decoded or
    has negative values.
    """
    return np.asarray(to_gray(decoded(path), whites))


def read_pixels(path: Path, *, channels: int, whites: Sequence[float] = (), frame: int = 0) -> Pixels:
    """Reads an image, or a frame of a clip, as ``read_gray`` does: H×W for one channel, RGB H×W×3 for three."""
    return to_pixels(decoded(path, frame), channels=channels, whites=whites)


def to_pixels(image: Image.Image, *, channels: int, whites: Sequence[float] = ()) -> Pixels:
    """Converts a decoded image to H×W gray values, or to RGB H×W×3 for three channels."""
    if channels == 1 or is_deep(image):
        gray = np.asarray(to_gray(image, whites))
        return gray if channels == 1 else np.repeat(gray[..., None], channels, axis=2)
    return np.asarray(opaque(image))


def gray_of(pixels: Pixels) -> Pixels:
    """Converts H×W or RGB H×W×3 to H×W gray values."""
    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))


def pixels_of(image: Image.Image, *, channels: int, whites: Sequence[float] = ()) -> Pixels:
    """Converts an opened image as ``read_pixels`` does; raises DataError if it cannot be decoded."""
    try:
        image.load()
        return to_pixels(upright(image), channels=channels, whites=whites)
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded as an image ({error})") from error


def white_of(images: Iterable[tuple[Path, int]], *, bits: int | None) -> float | None:
    """Finds the white value of a source's images of more than 8 bits; None if there are none.

    The images are files, with the number of the frame of a clip.

    It follows from ``bits``, or is the smallest usual bit depth that holds all values. Ignores files that
    cannot be decoded. Raises DataError if fractions and whole numbers are mixed, if ``bits`` is set for
    fractions, or if the values are on no known gray scale.
    """
    fractions: dict[bool, float] = {}
    such_as: dict[bool, Path] = {}
    uneven: Path | None = None
    for path, frame in images:
        try:
            with _opened_frame(path, frame) as image:
                if is_deep(image) and image.width * image.height <= MAX_PIXELS:
                    values = _deep_values(image)
                    kind = image.mode == "F" and values.max(initial=0.0) <= MOST_OF_A_FRACTION
                    fractions[kind] = max(fractions.get(kind, 0.0), float(values.max(initial=0.0)))
                    such_as.setdefault(kind, path)
                    if uneven is None and not kind and not (values == np.round(values)).all():
                        uneven = path
        except (*_UNREADABLE, DataError):
            continue
    if len(fractions) > 1:
        raise DataError(
            f"data.sources: some images hold fractions (0-1), such as {such_as[True]}, others whole numbers, such as "
            f"{such_as[False]}; convert them to one scale, or split them into two sources"
        )
    if uneven is not None and fractions[False] < LEAST_WHITE:
        raise DataError(
            f"data.sources: images hold fractional numbers up to {fractions[False]:g}, such as {uneven}; "
            "scale all images to fractions 0-1, or to whole numbers such as 0-255"
        )
    if True in fractions:
        if bits is not None:
            raise DataError(f"data.sources.bits: {bits} needs whole numbers, but the images hold fractions; remove it")
        return 1.0
    if bits is not None:
        return 2.0**bits - 1
    return _depth(fractions[False]) if fractions else None


def decoded(path: Path, frame: int = 0) -> Image.Image:
    """Decodes an image file, or one frame of a DICOM clip, counted from 0.

    Raises DataError if it cannot be decoded or has more than ``MAX_PIXELS``.
    """
    if path.suffix.lower() not in SUFFIXES and is_dicom(path):
        return frame_of(path, frame, most_pixels=MAX_PIXELS)
    try:
        with opened(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"image has {image.width}×{image.height} pixels, at most {MAX_PIXELS:,} are allowed")
            image.load()
            return upright(image)
    except FileNotFoundError:
        raise DataError("no such file") from None
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded as an image ({error})") from error


def _opened_frame(path: Path, frame: int) -> contextlib.AbstractContextManager[Image.Image]:
    """Opens an image; frames of DICOM clips are decoded."""
    dicom = path.suffix.lower() not in SUFFIXES and is_dicom(path)
    return contextlib.nullcontext(frame_of(path, frame, most_pixels=MAX_PIXELS)) if dicom else opened(path)


def upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation of a decoded image."""
    return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) in range(2, 9) else image


def turned_like(pixels: Pixels, orientation: int) -> Pixels:
    """Applies an EXIF orientation to stored pixels H×W."""
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def orientation_of(path: Path) -> int:
    """Reads the EXIF orientation, 1 to 8; 1 (not rotated) if there is none."""
    try:
        with Image.open(path) as image:
            found = image.getexif().get(ORIENTATION, 1)
    except _UNREADABLE:
        return 1
    return found if found in range(1, 9) else 1


def is_deep(image: Image.Image) -> bool:
    """Returns whether the image has more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def to_gray(image: Image.Image, whites: Sequence[float] = ()) -> Image.Image:
    """Converts a decoded image as ``read_gray`` does; raises AmbiguousError for negative values."""
    if is_deep(image):
        deep = _deep_values(image)
        white = _white(deep, whites, fractions=image.mode == "F")
        return Image.fromarray(np.clip(deep * (255.0 / white), 0, 255).round().astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    return opaque(image).convert("L")


COLOR_STEP = 40
"""A pixel is colored if its channels differ by more than this; less is rounding, or JPEG."""


def colored_fraction(image: Image.Image) -> float:
    """Returns which fraction of a decoded image's pixels is colored, and not transparent."""
    if image.mode not in ("RGB", "RGBA", "P", "CMYK", "YCbCr"):
        return 0.0
    pixels = np.asarray(image.convert("RGBA"), dtype=np.int16)
    spread = pixels[..., :3].max(axis=2) - pixels[..., :3].min(axis=2)
    return float(((spread > COLOR_STEP) & (pixels[..., 3] > 0)).mean())


def opaque(image: Image.Image) -> Image.Image:
    """Converts an 8-bit image to RGB; transparency becomes black."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")


def _deep_values(image: Image.Image) -> npt.NDArray[np.float64]:
    """Returns the values with NaN replaced by 0; raises AmbiguousError if they are not gray values."""
    values = np.asarray(image).astype(np.float64)
    if np.isinf(values).any():
        raise AmbiguousError("holds infinite values; replace them, such as with 0")
    values = np.nan_to_num(values)
    least, brightest = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if least < (-OVERSHOOT * brightest if image.mode == "F" else 0):
        raise AmbiguousError(
            f"holds values from {least:g} to {brightest:g}, but gray values must not be negative; choose one value for "
            "black and one for white for all images, and save fractions 0-1 or whole numbers"
        )
    return values


def _white(values: npt.NDArray[np.float64], whites: Sequence[float], *, fractions: bool) -> float:
    """Chooses the smallest of ``whites`` that holds the brightest value, or their largest; default: a usual depth.

    Raises DataError for fractions among whole numbers and vice versa, which would become all black or all white.
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
            f"holds fractions (0-1), expected whole numbers up to {max(whites):g}; save it with {max(whites):g} as "
            "white"
        )
    if set(whites) == {1.0} and brightest > MOST_OF_A_FRACTION:
        raise DataError(
            f"holds values up to {brightest:g}, expected fractions (0-1); divide the values by that of white"
        )


def _depth(brightest: float) -> float:
    """Chooses the smallest usual bit depth that holds the value; files do not record that they have 12 bits."""
    return float(next((white for white in WHITES if brightest <= white), brightest))
