"""Decodes mask files; decides for all masks of a source together which value is background."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdsearch.config.data import ClassNumbers, DataConfig
from kdsearch.config.task import IGNORED
from kdsearch.data.frame import merged
from kdsearch.data.layout import Defect, Entry
from kdsearch.data.pixels import (
    AmbiguousError,
    Pixels,
    decoded,
    is_deep,
    opaque,
    orientation_of,
    to_gray,
    turned_like,
)
from kdsearch.data.tables import normal
from kdsearch.errors import DataError, nearest

COLOR_STEP = 40
"""Colors of equal brightness are different if a channel differs by more than this; less is rounding."""
CLASSES = 32
"""Masks with more values than this do not hold class numbers."""
LISTED = 8
"""An error lists at most this many values."""
SAME_ASPECT = 0.01
"""Largest relative difference of the aspect ratios of a mask and its image, which is due to rounding."""
IF_NUMBERS = "if these are class numbers"
THRESHOLD = "set threshold: 128 for this source, so that brighter pixels are the lesion"


class MaskError(DataError):
    """A mask that cannot be used; ``path`` is its file."""

    def __init__(self, path: Path, cause: DataError) -> None:
        super().__init__(str(cause))
        self.path, self.cause = path, cause


class SourceMasks:
    """The masks of one source.

    In a mask with two values the lower one is background. A mask with a single value above 0 is
    ambiguous; the other masks of the source then decide. With a threshold, no mask is ambiguous.
    """

    def __init__(
        self, paths: Iterable[Path] = (), *, threshold: int | None = None, numbers: ClassNumbers | None = None
    ) -> None:
        """Takes the paths of all masks of the source.

        ``threshold`` is the least gray value of a lesion; ``numbers`` are for masks that hold class numbers
        or colors, and for masks of one class each.
        """
        self._paths, self._threshold, self._numbers = tuple(paths), threshold, numbers
        self._low: dict[int, Path] = {}
        self._high: dict[int, Path] = {}
        self._all_seen = False
        self.recoded = False
        """Whether a mask with a single value above 0 was read as empty."""
        self.resized: set[Path] = set()
        """Masks that were read and have another size than their image."""
        self.turned: set[Path] = set()
        """Masks that were read and got the EXIF orientation of their image."""

    @property
    def most_classes(self) -> int:
        """Number of classes other than the background."""
        return 1 if self._numbers is None else max(1, len(self._numbers.names) - 1)

    def of(self, entry: Entry, *, shape: tuple[int, int]) -> Pixels:
        """Reads all masks of an image of this shape (H, W) as class numbers, with 0 for the background.

        Raises MaskError if a mask cannot be read.
        """
        if entry.size is not None and entry.size != shape:
            (height, width), (wanted_height, wanted_width) = shape, entry.size
            raise DataError(
                f"its annotations are for {wanted_width}×{wanted_height} pixels, but it has {width}×{height}"
            )
        if entry.shapes:
            return self._drawn(entry, shape)
        classes: Sequence[str | None] = entry.classes or (None,) * len(entry.masks)
        orientation = orientation_of(entry.image) if entry.masks else 1
        frames = entry.mask_frames or (0,) * len(entry.masks)
        found = list[Pixels]()
        for path, frame, name in zip(entry.masks, frames, classes, strict=True):
            try:
                found.append(self.read(path, shape=shape, name=name, orientation=orientation, frame=frame))
            except DataError as error:
                raise MaskError(path, error) from error
        return merged(found, shape)

    def _drawn(self, entry: Entry, shape: tuple[int, int]) -> Pixels:
        """Draws the objects of an annotation file."""
        canvas: Pixels = np.zeros(shape, dtype=np.uint8)
        for one in entry.shapes:
            one.draw(canvas, 1 if self._numbers is None else _number_of(one.name, self._numbers))
        return canvas

    def read(
        self, path: Path, *, shape: tuple[int, int], name: str | None = None, orientation: int = 1, frame: int = 0
    ) -> Pixels:
        """Reads a mask as class numbers H×W; resizes it to ``shape`` (H, W) if only the resolution differs.

        ``name`` is the class that a mask of two values shows; ``orientation`` is the image's; ``frame`` is the
        mask's in a DICOM segmentation. Raises DataError if the file cannot be decoded, has other values, or has
        another aspect ratio.
        """
        mask = self._classes(path, name, frame)
        if mask.shape != shape and orientation > 4 and orientation_of(path) == 1 and mask.shape[::-1] == shape:
            self.turned.add(path)
            return turned_like(mask, orientation)
        (height, width), (wanted_height, wanted_width) = mask.shape, shape
        if mask.shape == shape:
            return mask
        if abs(height * wanted_width / (width * wanted_height) - 1) > SAME_ASPECT:
            raise DataError(f"mask is {width}×{height} pixels, but its image is {wanted_width}×{wanted_height}")
        self.resized.add(path)
        return np.asarray(Image.fromarray(mask).resize((wanted_width, wanted_height), Image.Resampling.NEAREST))

    def _classes(self, path: Path, name: str | None, frame: int) -> Pixels:
        """Reads a mask at its own size."""
        numbers = self._numbers
        if numbers is not None and name is None and numbers.by_value:
            return _of_classes(_colors(path) if numbers.colors else _class_numbers(path), numbers, path)
        number = np.uint8(1 if name is None or numbers is None else _number_of(name, numbers))
        gray = _mask_values(path, frame)
        ignored = gray == (-1 if numbers is None or numbers.ignored is None else numbers.ignored)
        if self._threshold is not None:
            return np.where(ignored, np.uint8(IGNORED), np.where(gray >= self._threshold, number, np.uint8(0)))
        values = [int(value) for value in np.unique(gray[~ignored])]
        if len(values) > 2:
            raise DataError(_too_many(values, path))
        self._note(values, path)
        background = values[0] if len(values) == 2 or (values and self._is_background(values[0])) else -1
        return np.where(ignored, np.uint8(IGNORED), np.where(gray > background, number, np.uint8(0)))

    def require_one_coding(self, source: str) -> None:
        """Raises DataError if a value is background in one mask and lesion in another."""
        for value in sorted(self._low.keys() & self._high.keys()):
            raise DataError(
                f"data.sources: source {source}: gray value {value} is the lesion in {self._high[value]} and "
                f"background in {self._low[value]}; save all masks with 0 for background and 255 for the lesion"
            )

    def _note(self, values: list[int], path: Path) -> None:
        if len(values) == 2:
            self._low.setdefault(values[0], path)
            self._high.setdefault(values[1], path)

    def _is_background(self, value: int) -> bool:
        """Returns whether a mask with only this value is empty; raises AmbiguousError if that cannot be decided."""
        if value == 0:
            return True
        self._see_all()
        if value in self._low:
            self.recoded = True
            return True
        if self._high and value not in self._high:
            raise AmbiguousError(
                f"every pixel is {value}, and no other mask of the source has this value; save background as 0 and "
                "the lesion as 255"
            )
        return False

    def _see_all(self) -> None:
        if self._all_seen:
            return
        self._all_seen = True
        for path in self._paths:
            try:
                values = [int(value) for value in np.unique(_mask_values(path))]
            except DataError:
                continue
            self._note(values, path)


def class_numbers_in(paths: Iterable[Path]) -> list[int]:
    """Lists the class numbers in masks, sorted; ignores masks that have none."""
    found = set[int]()
    for path in paths:
        with contextlib.suppress(DataError):
            found |= set(np.unique(_class_numbers(path)).tolist())
    return sorted(found)


def _class_numbers(path: Path) -> npt.NDArray[np.int64]:
    """Reads H×W class numbers; those of a palette image are the palette's. Raises DataError for a colored image."""
    pixels = np.asarray(decoded(path))
    if pixels.ndim == 3 and (pixels[..., :3] == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2:
        raise DataError(
            "mask is colored, but data.classes needs numbers; save them as gray values or as a palette image"
        )
    if not np.isfinite(pixels).all() or not np.array_equal(pixels, pixels.astype(np.int64)):
        raise DataError("mask has fractions, but data.classes needs whole numbers; save it with whole numbers")
    return pixels.astype(np.int64)


def _colors(path: Path) -> npt.NDArray[np.int64]:
    """Reads H×W colors as numbers, 65536 · red + 256 · green + blue."""
    image = decoded(path)
    if is_deep(image):
        raise DataError("mask has more than 8 bits, but data.palette needs colors; save it as an 8-bit RGB image")
    colors = np.asarray(opaque(image)).astype(np.int64)
    return np.asarray(colors @ np.array([65536, 256, 1]))


def _of_classes(found: npt.NDArray[np.int64], numbers: ClassNumbers, path: Path) -> Pixels:
    """Turns the values of a mask into class numbers; raises DataError for a value that no class names."""
    values, inverse, counts = np.unique(found, return_inverse=True, return_counts=True)
    others = {"error": None, "background": 0, "ignore": IGNORED}[numbers.others]
    table = [numbers.values.get(value, IGNORED if value == numbers.ignored else others) for value in values.tolist()]
    if None in table:
        place = table.index(None)
        raise DataError(_unnamed(int(values[place]), int(counts[place]), numbers, path))
    return np.array(table, dtype=np.uint8)[inverse].reshape(found.shape)


def _number_of(name: str, numbers: ClassNumbers) -> int:
    """The class of a mask whose path names it; raises DataError if there is none."""
    known = {normal(one): number for one, number in numbers.names.items()}
    others = {"error": None, "background": 0, "ignore": IGNORED}[numbers.others]
    number = known.get(normal(name), others)
    if number is None:
        raise DataError(
            f"has the class {name!r}, which data.classes does not have; add it, or set other_values: background"
            f"{nearest(name, numbers.names)}"
        )
    return number


def _unnamed(value: int, count: int, numbers: ClassNumbers, path: Path) -> str:
    jpeg = "; JPEG changes values, so save masks as PNG" * (path.suffix.lower() in (".jpg", ".jpeg"))
    if numbers.colors:
        color = [value >> 16, value >> 8 & 255, value & 255]
        return (
            f"mask has {count} pixels of color {color}, which data.palette does not name; add it to a class, or set "
            f"other_values: background or other_values: ignore{jpeg}"
        )
    return (
        f"mask has {count} pixels of number {value}, which data.classes does not name; add it to a class, set ignore: "
        f"{value} if such pixels must not count, or set other_values: background{jpeg}"
    )


def _mask_values(path: Path, frame: int = 0) -> Pixels:
    """Reads H×W gray values; raises DataError if two colors would become one."""
    image = decoded(path, frame)
    gray = np.asarray(to_gray(image))
    if not is_deep(image) and image.mode not in ("1", "L"):
        _require_distinct(np.asarray(opaque(image)), gray)
    return gray


def _require_distinct(colors: Pixels, gray: Pixels) -> None:
    """Raises AmbiguousError if a seemingly binary mask has different colors with the same gray value."""
    if (colors == colors[..., :1]).all():
        return
    values = np.unique(gray)
    if len(values) > 2:
        return
    for value in values:
        here = colors[gray == value].astype(np.int16)
        if (here.max(axis=0) - here.min(axis=0)).max() > COLOR_STEP:
            raise AmbiguousError(
                f"mask has two colors of the same brightness ({value} of 255), such as red and green; save it in black "
                "and white"
            )


def _too_many(values: list[int], path: Path) -> str:
    listed = ", ".join(map(str, values[:LISTED])) + (", …" if len(values) > LISTED else "")
    what = f"mask has more than two gray values ({listed})"
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return f"{what}, because JPEG blurs masks; {THRESHOLD}"
    if len(values) > CLASSES:
        return f"{what}; if it was smoothed or resized, {THRESHOLD}"
    return (
        f"{what}; if it was smoothed or resized, {THRESHOLD}; {IF_NUMBERS}, name them in the data section, such as "
        f"classes: {{background: 0, object: {values[-1]}}}, with other_values: background for the others"
    )


LISTED_DEFECTS = 3
"""If more files than this have the same problem, they share one line."""
KINDS = 12
"""At most this many kinds of problems are listed, to fit on a screen."""


def refuse_defects(defects: Sequence[Defect], config: DataConfig) -> None:
    """Raises DataError that summarizes the defects, unless the study leaves out such images."""
    if defects and config.on_invalid == "error":
        listed = "\n".join(f"  {line}" for line in summed_up(defects))
        raise DataError(
            f"{len(defects)} file{'s' * (len(defects) != 1)} cannot be used:\n{listed}\n"
            "Fix them, or leave these images out: set on_invalid: skip in the study file's data section, or pass "
            "--on-invalid skip to kdsearch evaluate."
        )


def summed_up(defects: Sequence[Defect]) -> list[str]:
    """Returns a line per defect, or one line for all defects of a kind if there are many."""
    kinds: dict[str, list[Defect]] = defaultdict(list)
    for defect in defects:
        kinds[_kind(defect)].append(defect)
    lines: list[str] = []
    for alike in list(kinds.values())[:KINDS]:
        if len(alike) <= LISTED_DEFECTS:
            lines += [str(defect) for defect in alike]
        else:
            lines.append(f"{len(alike)} files, such as {alike[0]}")
    rest = sum(map(len, list(kinds.values())[KINDS:]))
    return [*lines, f"and {rest} more files"] if rest else lines


def _kind(defect: Defect) -> str:
    """Returns the problem without numbers and names, which is equal for defects of one kind."""
    return re.sub(r"\d+", "#", re.sub(r"\(.*?\)|'.*?'|as .*$", "", defect.problem))


def summed_up_again(lines: Sequence[str]) -> list[str]:
    """Does the same as ``summed_up`` for defects from a cache, in the form ``FILE: PROBLEM``."""
    parts = (line.partition(": ") for line in lines)
    return summed_up([Defect(path=Path(file), problem=problem) for file, _, problem in parts])
