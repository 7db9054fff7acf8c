"""Reads images and masks at their original resolution."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from kdsearch.config.data import DataConfig
from kdsearch.config.sources import PhantomSource, source_name, threshold_of
from kdsearch.data.layout import Remark
from kdsearch.data.masks import SourceMasks
from kdsearch.data.phantom import phantom_of
from kdsearch.data.pixels import Pixels, to_pixels, white_of
from kdsearch.data.source import list_source
from kdsearch.errors import DataError, KdsearchError
from kdsearch.files.atomic import atomic_write
from kdsearch.files.schema import Schema, unchanged

SCHEMA = Schema(what="reading of images", upgrades=(unchanged,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was found when the files of one fingerprint were read."""

    data: str
    """The fingerprint of the arrays. It differs from the files' if older releases read these files differently."""
    shrunk: Mapping[str, int | None]
    """Images of which a class would vanish at the study's size, and the smallest height that keeps it (None: none)."""
    rotated: tuple[str, ...]
    """Images whose EXIF orientation differs from that of their masks."""
    colored: tuple[str, ...] = ()
    """Images of which a large part is colored."""
    resized: tuple[str, ...] = ()
    """Images whose masks have another size."""
    images: int = 0
    """Number of images that were read; 0 if an older release read them."""

    def remarks(self, config: DataConfig) -> tuple[Remark, ...]:
        """Returns what a user of this data section should know."""
        least = [one or 0 for one in self.shrunk.values()]
        height, width = config.shape
        size: object = max(least, default=0)
        size = size if height == width else [size, round(max(least, default=0) * width / height)]
        remedy = f"data.size: {size} keeps all" if all(least) else "no data.size keeps all"
        what = "lesion is" if len(config.foreground) < 2 else "smallest class is"
        found = (
            Remark(
                what=f"images whose {what} too small for size {config.size} and is reduced to one pixel ({remedy})",
                names=tuple(self.shrunk),
            ),
            Remark(
                what="images with an EXIF rotation that their masks lack; kdsearch rotates such images, so check that "
                "the masks fit",
                names=self.rotated,
            ),
            Remark(
                what=f"images that are colored{self._share_colored()}, which kdsearch converts to gray; data.channels: "
                "3 keeps their colors",
                names=self.colored if config.channels == 1 else (),
            ),
            Remark(what="images whose masks have another size and were resized to theirs", names=self.resized),
        )
        return tuple(one for one in found if one.names)

    def _share_colored(self) -> str:
        return f" ({len(self.colored) / self.images:.0%} of all)" if self.images else ""


_READING = TypeAdapter(Reading)


def keep_reading(home: Path, files: str, reading: Reading) -> None:
    """Stores the reading of the files with this fingerprint; raises OSError."""
    atomic_write(str(_place(home, files)), json.dumps(SCHEMA.stamped(asdict(reading)), indent=1).encode())


def known_reading(home: Path, files: str) -> Reading | None:
    """Returns the stored reading of the files with this fingerprint, or None if there is no readable one."""
    try:
        content = json.loads(_place(home, files).read_text(encoding="utf-8"))
        return _READING.validate_python(SCHEMA.upgraded(content))
    except (OSError, ValueError, TypeError, ValidationError, KdsearchError):
        return None


def _place(home: Path, files: str) -> Path:
    return home / "data" / f"{files}.reading.json"


FRACTION_OF_DIAGONAL = 0.01
"""Tolerance of surface Dice, as a fraction of the image's diagonal, if the pixel size is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeImage:
    """One image at its original resolution."""

    id: str
    """As in ``ImageInfo``."""
    pixels: Pixels
    """H×W gray values 0-255, or RGB H×W×3."""
    mask: Pixels
    """H×W class numbers, as in ``Dataset``."""
    tolerance_px: float
    """Tolerance of normalized surface Dice, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeMask:
    """One image's mask, compressed."""

    height: int
    width: int
    tolerance_px: float
    packed: bytes

    @classmethod
    def of(cls, mask: Pixels, *, tolerance_px: float) -> NativeMask:
        """Compresses class numbers H×W."""
        packed = zlib.compress(np.ascontiguousarray(mask).tobytes(), 1)
        return cls(height=mask.shape[0], width=mask.shape[1], tolerance_px=tolerance_px, packed=packed)

    @property
    def classes(self) -> Pixels:
        """H×W class numbers, as in ``Dataset``."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.height, self.width)


def native_masks(config: DataConfig, wanted: Collection[str]) -> dict[str, NativeMask]:
    """Reads the masks of the wanted images, by id; raises DataError if a file cannot be read."""
    return {
        image.id: NativeMask.of(image.mask, tolerance_px=image.tolerance_px) for image in native_images(config, wanted)
    }


def native_images(
    config: DataConfig, wanted: Collection[str], *, whites: Sequence[float] | None = None
) -> Iterator[NativeImage]:
    """Yields the wanted images in the order of the sources; raises DataError if a file cannot be read.

    ``whites`` belong to a student, so that gray values are scaled as in its training. Default: each source's own.
    """
    for source in config.sources:
        name = source_name(source)
        if isinstance(source, PhantomSource):
            for index in range(source.images):
                if f"{name}/{index:05d}" in wanted:
                    phantom = phantom_of(source, index)
                    tolerance = _tolerance_px(phantom.mask, spacing_mm=None, tolerance_mm=config.tolerance_mm)
                    yield NativeImage(
                        id=f"{name}/{index:05d}",
                        pixels=phantom.pixels(config.channels),
                        mask=phantom.mask,
                        tolerance_px=tolerance,
                    )
            continue
        entries = list_source(source).entries
        own = whites
        if own is None:
            white = white_of(((entry.image, entry.frame) for entry in entries), bits=source.bits)
            own = () if white is None else (white,)
        masks = SourceMasks(
            (path for entry in entries for path in entry.masks),
            threshold=threshold_of(source),
            numbers=config.class_numbers,
        )
        for entry in entries:
            if f"{name}/{entry.id}" not in wanted:
                continue
            try:
                pixels = to_pixels(entry.picture(), channels=config.channels, whites=own)
                mask = masks.of(entry, shape=(pixels.shape[0], pixels.shape[1]))
            except DataError as error:
                raise DataError(f"{entry.image}: {error}") from error
            spacing = source.spacing_mm or entry.spacing_mm
            tolerance = _tolerance_px(mask, spacing_mm=spacing, tolerance_mm=config.tolerance_mm)
            yield NativeImage(id=f"{name}/{entry.id}", pixels=pixels, mask=mask, tolerance_px=tolerance)


def _tolerance_px(mask: Pixels, *, spacing_mm: float | None, tolerance_mm: float) -> float:
    return tolerance_mm / spacing_mm if spacing_mm is not None else FRACTION_OF_DIAGONAL * math.hypot(*mask.shape)
