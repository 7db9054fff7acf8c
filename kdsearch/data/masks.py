"""Decodes mask files into lesion pixels; what is background is decided for all masks of a source together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kdsearch.config.data import DataConfig
from kdsearch.data.layout import Defect
from kdsearch.data.pixels import AmbiguousError, Pixels, decoded, is_deep, opaque, to_grey
from kdsearch.errors import DataError

COLOUR_STEP = 40
"""By how much a channel of two colours of one brightness differs, if they are not one colour by rounding."""
CLASSES = 32
"""More values than this are no class numbers."""
LISTED = 8
"""Values that an error names."""
AS_PNG = 'such as Image.open(PATH).convert("L").point(lambda v: 255 * (v > 127)) of Pillow, and save it as PNG'


class SourceMasks:
    """The masks of one source.

    A mask of two values says which is background: the lower. A mask of one value above 0 does not, so then all masks
    of the source are looked at.
    """

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        """``paths``: all masks of the source."""
        self._paths = tuple(paths)
        self._low: dict[int, Path] = {}
        self._high: dict[int, Path] = {}
        self._all_seen = False
        self.recoded = False
        """Whether a mask of one value above 0 was read as empty."""

    def read(self, path: Path, *, shape: tuple[int, int]) -> Pixels:
        """The mask as H×W of 0 and 255.

        Raises DataError if the file cannot be decoded, is not two-valued, or has another size than ``shape`` (H, W).
        """
        grey = _mask_values(path)
        if grey.shape != shape:
            raise DataError(f"mask is {grey.shape[1]}×{grey.shape[0]} pixels, its image {shape[1]}×{shape[0]}")
        values = [int(value) for value in np.unique(grey)]
        if len(values) > 2:
            raise DataError(_too_many(values, path))
        self._note(values, path)
        background = values[0] if len(values) == 2 or self._is_background(values[0]) else -1
        return np.where(grey > background, np.uint8(255), np.uint8(0))

    def require_one_coding(self, source: str) -> None:
        """Raises DataError if a value is background in one of the masks that were read and the lesion in another."""
        for value in sorted(self._low.keys() & self._high.keys()):
            raise DataError(
                f"data.sources: source {source}: grey value {value} is the lesion in {self._high[value]} and "
                f"background in {self._low[value]}; save all masks as 0 for background and 255 for the lesion"
            )

    def _note(self, values: list[int], path: Path) -> None:
        if len(values) == 2:
            self._low.setdefault(values[0], path)
            self._high.setdefault(values[1], path)

    def _is_background(self, value: int) -> bool:
        """Whether a mask that holds this value only is empty; raises AmbiguousError if the others do not say."""
        if value == 0:
            return True
        self._see_all()
        if value in self._low:
            self.recoded = True
            return True
        if self._high and value not in self._high:
            raise AmbiguousError(
                f"every pixel is {value}, a value that no other mask of the source has; save background as 0 and the "
                "lesion as 255"
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


def _mask_values(path: Path) -> Pixels:
    """H×W grey values; raises DataError if two colours would become one."""
    image = decoded(path)
    grey = np.asarray(to_grey(image))
    if not is_deep(image) and image.mode not in ("1", "L"):
        _require_distinct(np.asarray(opaque(image)), grey)
    return grey


def _require_distinct(colours: Pixels, grey: Pixels) -> None:
    """Raises AmbiguousError if colours that differ have one grey value in a mask that would seem two-valued."""
    if (colours == colours[..., :1]).all():
        return
    values = np.unique(grey)
    if len(values) > 2:
        return
    for value in values:
        here = colours[grey == value].astype(np.int16)
        if (here.max(axis=0) - here.min(axis=0)).max() > COLOUR_STEP:
            raise AmbiguousError(
                f"mask has two colours of one brightness ({value} of 255), such as red and green; save it as black and "
                "white"
            )


def _too_many(values: list[int], path: Path) -> str:
    listed = ", ".join(map(str, values[:LISTED])) + (", …" if len(values) > LISTED else "")
    what = f"mask has more than two grey values ({listed})"
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return f"{what}; JPEG blurs masks: threshold it, {AS_PNG}"
    if len(values) > CLASSES:
        return f"{what}; blurred by smoothing or resizing? Threshold it, {AS_PNG}"
    return f"{what}; class numbers? kdsearch learns one class: save that class as 255 and all others as 0, as PNG"


LISTED_DEFECTS = 3
"""Files with one problem that are named one by one; more are summed up."""
KINDS = 12
"""Kinds of problems that are named; a screen has few lines."""


def refuse_defects(defects: Sequence[Defect], config: DataConfig) -> None:
    """Raises DataError that sums them up, unless the study leaves such images out."""
    if defects and config.on_invalid == "error":
        listed = "\n".join(f"  {line}" for line in summed_up(defects))
        raise DataError(
            f"{len(defects)} files cannot be used as they are:\n{listed}\n"
            "Fix them, or leave these images out: on_invalid: skip in a study file's data section, --on-invalid skip "
            "for kdsearch evaluate."
        )


def summed_up(defects: Sequence[Defect]) -> list[str]:
    """A line for each defect, or for all of one kind if there are many."""
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
    """Equal for defects that differ in numbers and names."""
    return re.sub(r"\d+", "#", re.sub(r"\(.*?\)|'.*?'|as .*$", "", defect.problem))


def summed_up_again(lines: Sequence[str]) -> list[str]:
    """As ``summed_up``, from defects as they are kept in a cache, ``FILE: PROBLEM``."""
    parts = (line.partition(": ") for line in lines)
    return summed_up([Defect(path=Path(file), problem=problem) for file, _, problem in parts])
