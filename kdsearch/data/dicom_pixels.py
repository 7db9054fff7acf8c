"""Decodes DICOM images, the frames of clips and of segmentations: colors, rescaling, windows."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdsearch.data.dicom import (
    INSTALL,
    Numbers,
    first_number,
    guarded,
    header,
    of_frame,
    parsed,
    silent,
    version_of,
)
from kdsearch.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLORS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")
"""Values of PhotometricInterpretation; the decoder turns the last five into RGB."""


@functools.lru_cache(maxsize=2)
def _opened(path: Path, _size: int, _changed: int) -> Dataset:
    """The clip of the last frame, which is often also that of the next one, and its segmentation."""
    return parsed(path, pixels=True)


def frame_of(path: Path, number: int = 0, *, most_pixels: int) -> Image.Image:
    """Decodes an image, or one frame of a clip, counted from 0.

    Returns gray or RGB pixels of 8 bits. Files of more bits that name no window give gray values of mode ``I``,
    which are not negative. Raises DataError if the file cannot be decoded or has more than ``most_pixels`` pixels.

    Source: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 and C.11.2 (rescaling and windows).
    """
    facts = header(path)
    if facts.kind == "other":
        raise DataError("is a DICOM file without an image")
    if facts.height * facts.width > most_pixels:
        raise DataError(f"image has {facts.width}×{facts.height} pixels, at most {most_pixels:,} are allowed")
    if number >= facts.frames:
        raise DataError(f"has {facts.frames} frames, so it has no frame {number + 1}")
    found = _opened(path, *version_of(path))
    values = _values(found, number)
    if values.shape[:2] != (facts.height, facts.width):
        raise DataError("its pixels do not have the size that its header states")
    with guarded("the description of its pixels"):
        return _mask_picture(found, values) if facts.kind == "mask" else _picture(found, number, values)


def _values(found: Dataset, number: int) -> Numbers:
    """Decompresses a frame."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    syntax = found.file_meta.get("TransferSyntaxUID") if "file_meta" in vars(found) else None
    if syntax is None or "PixelData" not in found:
        raise DataError(
            "its pixels are missing or cut off" if syntax is not None else "does not say how its pixels are stored"
        )
    name = syntax.name if syntax.is_transfer_syntax else "an unknown format"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DataError(f"its pixels are stored as {name}, which pydicom cannot decode; convert the file") from None
    if not decoder.is_available:
        raise DataError(f"its pixels are stored as {name}; to decode them: {INSTALL}")
    try:
        with silent():
            return pixel_array(found, index=number)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything for damaged data
        raise DataError(f"its pixels ({name}) cannot be decoded; they are damaged ({type(error).__name__})") from None


def _mask_picture(found: Dataset, values: Numbers) -> Image.Image:
    """White where the frame's segment is."""
    half = float(found.get("MaximumFractionalValue") or 1) / 2
    return Image.fromarray(np.where(values > half, np.uint8(255), np.uint8(0)))


def _picture(found: Dataset, number: int, values: Numbers) -> Image.Image:
    kind = str(found.get("PhotometricInterpretation") or "")
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        table = apply_color_lut(values, found)
        depth = int(found.RedPaletteColorLookupTableDescriptor[2])
        return Image.fromarray((table >> (depth - 8) if depth > 8 else table).astype(np.uint8)[..., :3])
    if kind in GRAY and values.ndim == 2:
        return _gray(found, number, values, inverted=kind == "MONOCHROME1")
    if kind in COLORS and values.ndim == 3 and values.dtype == np.uint8:
        return Image.fromarray(values)
    raise DataError(
        f"its pixels are {values.dtype} in the colors {kind if kind in (*GRAY, *COLORS) else 'of another kind'}"
    )


def _gray(found: Dataset, number: int, values: Numbers, *, inverted: bool) -> Image.Image:
    """Applies the rescaling and the window of a frame; inverts it if its lowest value is white."""
    window = _window(found, number, values)
    if window is not None:
        shown = 1 - window if inverted else window
        return Image.fromarray((shown * 255).round().astype(np.uint8))
    above, most = _from_black(found, number, values)
    above = most - above if inverted else above
    if most < 255:
        return Image.fromarray((above * (255 / most)).round().astype(np.uint8))
    return Image.fromarray(above.astype(np.uint8 if most == 255 else np.int32))


def _from_black(found: Dataset, number: int, values: Numbers) -> tuple[npt.NDArray[np.int64], int]:
    """Counts gray values from the lowest one; returns them and the largest possible value.

    Slopes other than 1 keep the stored steps, because the scale of gray values is arbitrary without a window.
    """
    how = of_frame(found, number, "PixelValueTransformationSequence")
    if how.get("ModalityLUTSequence"):
        entries, highest = _looked_up(how.ModalityLUTSequence[0], values.astype(np.float64))
        return entries.astype(np.int64), int(highest)
    bits, signed = int(found.BitsStored), bool(found.get("PixelRepresentation"))
    most, low = 2**bits - 1, -(2 ** (bits - 1)) if signed else 0
    above = np.clip(values.astype(np.int64) - low, 0, most)
    return (most - above if float(how.get("RescaleSlope") or 1) < 0 else above), most


def _window(found: Dataset, number: int, values: Numbers) -> npt.NDArray[np.float64] | None:
    """Returns what the frame's first window, or its table, shows as 0-1; None if it has neither."""
    rescaled = values.astype(np.float64)
    how = of_frame(found, number, "PixelValueTransformationSequence")
    table = how.get("ModalityLUTSequence")
    if table:
        rescaled = _looked_up(table[0], rescaled)[0]
    elif how.get("RescaleSlope") is not None:
        rescaled = rescaled * float(how.RescaleSlope) + float(how.get("RescaleIntercept") or 0)
    what = of_frame(found, number, "FrameVOILUTSequence")
    if what.get("VOILUTSequence"):
        shown, most = _looked_up(what.VOILUTSequence[0], rescaled)
        return shown / most
    center, width = first_number(what.get("WindowCenter")), first_number(what.get("WindowWidth"))
    if center is None or width is None:
        return None
    function = str(what.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID" and width > 0:
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (rescaled - center) / width, -700, 700))))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((rescaled - center) / width + 0.5, 0, 1)
    if width == 1:
        return np.where(rescaled > center - 0.5, 1.0, 0.0)
    if width > 1:
        return np.clip((rescaled - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    return None


def _looked_up(table: Dataset, values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Maps values by a table; returns them and the largest possible value."""
    count, first, bits = (int(one) for one in table.LUTDescriptor)
    data = table.LUTData
    count = count or 2**16
    words = "u1" if len(data) == count else "<u2"
    entries = np.frombuffer(data, words) if isinstance(data, bytes) else np.asarray(data)
    count = min(count, len(entries))
    places = np.clip(values.round().astype(np.int64) - first, 0, count - 1)
    return entries[places].astype(np.float64), float(2**bits - 1)
