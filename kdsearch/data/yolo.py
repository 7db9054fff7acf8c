"""Reads YOLO segmentation in Ultralytics' layout: ``data.yaml``, ``images/`` and ``labels/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kdsearch.data.layout import Defect, Entry, Listing, Part
from kdsearch.data.pixels import SUFFIXES, opened
from kdsearch.data.shapes import Shape, outline_of
from kdsearch.errors import DataError, first_line

YOLO_WHERE = "Ultralytics' 'instance segmentation datasets'; the folder has data.yaml, images/ and labels/"
DATA = ("data.yaml", "data.yml", "dataset.yaml")
PARTS: Mapping[str, Part] = {"train": "train", "val": "validation", "test": "test"}
BOX = 5
"""Numbers in a line that describes a box."""


def yolo_file(folder: Path, annotations: str | None) -> Path:
    """Returns the YAML file with the names of the classes; raises DataError if there is none."""
    names = DATA if annotations is None else (annotations,)
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise DataError(f"{folder}: has no {' or '.join(names)}; get the format: {YOLO_WHERE}")
    return found


def yolo_names(path: Path) -> dict[int, str]:
    """Reads the names of the classes; raises DataError."""
    names = _content(path).get("names")
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(listed, Mapping) or not listed or not all(isinstance(number, int) for number in listed):
        raise DataError(f"{path}: names must list the classes, such as names: {{0: lesion, 1: cyst}}")
    return {number: str(name) for number, name in listed.items()}


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read as YAML: {first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: must be a mapping with train, val and names")
    return content


def read_yolo(folder: Path, annotations: str | None = None) -> Listing:
    """Lists the images of ``train``, ``val`` and ``test``; an image without a label file is negative."""
    path = yolo_file(folder, annotations)
    content, names = _content(path), yolo_names(path)
    entries, defects, folders = list[Entry](), list[Defect](), list[Path]()
    for word, part in PARTS.items():
        places = content.get(word) or ()
        for place in [places] if isinstance(places, str) else places:
            images = _folder(folder, content, str(place))
            if images is None:
                raise DataError(f"{path}: {word}: {place} is not a folder below {folder}")
            folders.append(images)
            for image in sorted(one for one in images.rglob("*") if one.suffix.lower() in SUFFIXES):
                label = _label(image, folder)
                try:
                    shapes = _shapes(label, image, names) if label.is_file() else ()
                except DataError as error:
                    defects.append(Defect(path=label, problem=str(error)))
                    continue
                name = image.relative_to(folder).with_suffix("").as_posix()
                entries.append(Entry(id=name, image=image, masks=(), shapes=shapes, part=part))
    unique = {entry.image: entry for entry in reversed(entries)}
    kept = tuple(entry for entry in entries if unique[entry.image] is entry)
    return Listing(entries=kept, defects=tuple(defects), folders=tuple(folders), wanted="images/ and labels/")


def _folder(folder: Path, content: Mapping[str, Any], place: str) -> Path | None:
    """Finds a folder of images relative to the data set, whatever ``path`` says, because data sets move."""
    bases = (folder, folder / str(content.get("path", "")))
    return next(
        (base / place for base in bases if (base / place).is_dir() and (base / place).is_relative_to(folder)), None
    )


def _label(image: Path, folder: Path) -> Path:
    """The label file of an image: the last folder ``images`` of its path becomes ``labels``."""
    parts = list(image.relative_to(folder).with_suffix(".txt").parts)
    places = [place for place, one in enumerate(parts[:-1]) if one == "images"]
    if places:
        parts[places[-1]] = "labels"
    return folder.joinpath(*parts)


def _shapes(label: Path, image: Path, names: Mapping[int, str]) -> tuple[Shape, ...]:
    try:
        lines = [line.split() for line in label.read_text(encoding="utf-8").splitlines()]
        with opened(image) as file:
            width, height = file.size
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {first_line(error)}") from error
    found = []
    for number, words in enumerate(lines, start=1):
        if not words:
            continue
        what = f"line {number}"
        if not words[0].isdecimal() or int(words[0]) not in names:
            raise DataError(f"{what}: class {words[0]!r} is not in the names of the YAML file")
        if len(words) == BOX:
            raise DataError(f"{what}: describes a box; kdsearch needs outlines, as for segmentation")
        outline = outline_of(words[1:], what=what)
        scaled = tuple((x * width, y * height) for x, y in outline)
        found.append(Shape(name=names[int(words[0])], outlines=(scaled,)))
    return tuple(found)
