"""Reads LabelMe: a JSON file with shapes next to each image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsearch.data.layout import Defect, Entry, Listing
from kdsearch.data.shapes import ImageFiles, Shape, outline_of, read_json, rectangle
from kdsearch.errors import DataError

LABELME_WHERE = "LabelMe's JSON files, next to the images"
CIRCLE = 64
"""Corners of a polygon that replaces a circle."""


def read_labelme(folder: Path, annotations: str | None = None) -> Listing:  # noqa: ARG001 - the readers' contract
    """Lists the images that have a JSON file; one without shapes is negative. Raises DataError if there are none."""
    entries, defects, files = list[Entry](), list[Defect](), ImageFiles(folder)
    for path in sorted(folder.rglob("*.json")):
        try:
            content = read_json(path)
        except DataError as error:
            defects.append(Defect(path=path, problem=str(error).removeprefix(f"{path}: ")))
            continue
        if not isinstance(content, dict) or not {"shapes", "imagePath"} <= set(content):
            continue  # another program's file
        image = files.find(str(content["imagePath"]), near=(path.parent,))
        if image is None:
            defects.append(Defect(path=path, problem=f"its image {content['imagePath']} does not exist"))
            continue
        try:
            shapes = tuple(_shape(one, number) for number, one in enumerate(content["shapes"], start=1))
        except (DataError, KeyError, TypeError, AttributeError) as error:
            problem = str(error) if isinstance(error, DataError) else f"a shape lacks the key {error}"
            defects.append(Defect(path=path, problem=problem))
            continue
        height, width = content.get("imageHeight"), content.get("imageWidth")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        name = path.relative_to(folder).with_suffix("").as_posix()
        entries.append(Entry(id=name, image=image, masks=(), shapes=shapes, size=size))
    if not entries and not defects:
        raise DataError(f"{folder}: has no JSON file with shapes and imagePath; expected {LABELME_WHERE}")
    folders = tuple(dict.fromkeys(entry.image.parent for entry in entries)) or (folder,)
    return Listing(entries=tuple(entries), defects=tuple(defects), folders=folders, wanted=LABELME_WHERE)


def _shape(one: Mapping[str, Any], number: int) -> Shape:
    what, kind = f"shape {number}", one.get("shape_type", "polygon")
    numbers = [value for point in one["points"] for value in point]
    if kind == "polygon":
        return Shape(name=str(one["label"]), outlines=(outline_of(numbers, what=what),))
    if kind == "rectangle" and len(numbers) == 4:
        left, right = sorted((float(numbers[0]), float(numbers[2])))
        top, bottom = sorted((float(numbers[1]), float(numbers[3])))
        return Shape(name=str(one["label"]), outlines=(rectangle(left, top, right, bottom),))
    if kind == "circle" and len(numbers) == 4:
        x, y, radius = float(numbers[0]), float(numbers[1]), math.dist(numbers[:2], numbers[2:])
        turns = (2 * math.pi * place / CIRCLE for place in range(CIRCLE))
        outline = tuple((x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns)
        return Shape(name=str(one["label"]), outlines=(outline,))
    raise DataError(f"{what} is a {kind}; kdsearch reads polygons, rectangles and circles")
