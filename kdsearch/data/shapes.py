"""Objects in annotation files: outlines and run-length encoded bitmaps, drawn as masks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from kdsearch.data.pixels import SUFFIXES, Pixels
from kdsearch.errors import DataError, first_line

Point: TypeAlias = tuple[float, float]
"""x and y in pixels; the first pixel reaches from 0 to 1."""
FEWEST_POINTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One object of an image."""

    name: str
    """Its class."""
    outlines: tuple[tuple[Point, ...], ...] = ()
    """Polygons that are filled; the object is their union."""
    runs: tuple[int, ...] = ()
    """Lengths of alternating runs of pixels outside and inside, column by column, as in COCO."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, width and height of the pixels that the runs cover."""

    def draw(self, canvas: Pixels, number: int) -> None:
        """Sets the object's pixels of a mask H×W to a number; raises DataError if its runs do not fit."""
        if self.runs:
            left, top, width, height = self.box or (0, 0, canvas.shape[1], canvas.shape[0])
            fits = 0 <= left <= canvas.shape[1] - width and 0 <= top <= canvas.shape[0] - height
            if min(self.runs) < 0 or sum(self.runs) != width * height or not fits:  # before memory is taken for them
                raise DataError(f"the run lengths of a {self.name} cover {sum(self.runs)} pixels of {width}×{height}")
            inside = np.repeat(np.arange(len(self.runs)) % 2, self.runs)
            view = canvas[top : top + height, left : left + width]
            view[inside.reshape(width, height).T == 1] = number
        for outline in self.outlines:
            _fill(canvas, outline, number)


def _fill(canvas: Pixels, outline: Sequence[Point], number: int) -> None:
    """Sets the pixels whose centers are inside an outline, by the even-odd rule.

    Pillow's polygons also include pixels that the outline only touches.
    """
    x, y = np.array(outline).T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    height, width = canvas.shape
    for row in range(max(0, math.floor(y.min() - 0.5)), min(height, math.ceil(y.max()) + 1)):
        middle = row + 0.5
        crossed = (y <= middle) != (next_y <= middle)
        slopes = (next_x - x)[crossed] / (next_y - y)[crossed]
        places = np.sort(x[crossed] + (middle - y[crossed]) * slopes)
        columns = np.clip(np.ceil(places - 0.5), 0, width).astype(int)
        for left, right in zip(columns[::2], columns[1::2], strict=True):
            canvas[row, left:right] = number


def outline_of(numbers: Sequence[object], *, what: str) -> tuple[Point, ...]:
    """Turns x, y, x, y … into points; raises DataError, which starts with ``what``, if they are no polygon."""
    if len(numbers) % 2 or len(numbers) < 2 * FEWEST_POINTS:
        raise DataError(
            f"{what}: an outline needs at least three points, with x and y each; got {len(numbers)} numbers"
        )
    try:
        values = np.array([float(one) for one in numbers])  # type: ignore[arg-type]  # whatever the file holds
    except (TypeError, ValueError):
        raise DataError(f"{what}: the points of an outline must be numbers") from None
    if not np.isfinite(values).all():
        raise DataError(f"{what}: the points of an outline must be finite numbers")
    return tuple((float(x), float(y)) for x, y in values.reshape(-1, 2))


def rectangle(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    """Returns the outline of a box."""
    return (left, top), (right, top), (right, bottom), (left, bottom)


def runs_in(text: str) -> tuple[int, ...]:
    """Decodes COCO's compressed run lengths; raises ValueError for other text."""
    found: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} is no part of run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        found.append(value + found[-2] if len(found) > 2 else value)
        value, shift = 0, 0
    return tuple(found)


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises DataError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {first_line(error)}") from error


class ImageFiles:
    """The images in a folder, by how an annotation file may name them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_name: dict[str, list[Path]] = {}
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                self._by_name.setdefault(path.name, []).append(path)

    def find(self, name: str, *, near: Iterable[Path] = ()) -> Path | None:
        """Returns the image at this path below the root or the folders ``near``, or the only one of this name."""
        plain = name.replace("\\", "/")
        for folder in (*near, self._root, self._root / "images"):
            path = folder / plain
            if path.is_file() and path.resolve().is_relative_to(self._root.resolve()):
                return path
        same = self._by_name.get(plain.rpartition("/")[2], [])
        return same[0] if len(same) == 1 else None
