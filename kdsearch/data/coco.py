"""Reads COCO instance segmentation: JSON files with images, annotations and categories."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsearch.data.layout import Defect, Entry, Listing, Part
from kdsearch.data.pairing import PARTS
from kdsearch.data.shapes import ImageFiles, Shape, outline_of, read_json, runs_in
from kdsearch.errors import DataError

COCO_WHERE = "COCO's 'data format' for object detection; the folder has images, and annotations/*.json"
KEYS = {"images", "annotations", "categories"}


def coco_files(folder: Path, annotations: str | None) -> list[Path]:
    """Lists the annotation files; raises DataError if there are none."""
    if annotations is not None:
        paths = [folder / annotations]
    else:
        paths = sorted((*folder.glob("*.json"), *folder.glob("annotations/*.json")))
    found = [path for path in paths if annotations is not None or _is_coco(path)]
    if not found:
        raise DataError(
            f"{folder}: has no JSON file with images, annotations and categories; get the format: {COCO_WHERE}"
        )
    return found


def _is_coco(path: Path) -> bool:
    try:
        content = read_json(path)
    except DataError:
        return False
    return isinstance(content, dict) and set(content) >= KEYS


def read_coco(folder: Path, annotations: str | None = None) -> Listing:
    """Lists the images of one or several files; ``train``, ``val`` or ``test`` in a file's name is the part."""
    entries, defects, files = list[Entry](), list[Defect](), ImageFiles(folder)
    paths = coco_files(folder, annotations)
    for path in paths:
        part = (
            next((part for word, part in PARTS.items() if word in path.stem.lower()), None) if len(paths) > 1 else None
        )
        _read(path, files, part, entries, defects)
    folders = tuple(dict.fromkeys(entry.image.parent for entry in entries)) or (folder,)
    names = [entry.id for entry in entries]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{folder}: several annotation files list the image {twice}; name one with annotations")
    return Listing(
        entries=tuple(entries), defects=tuple(defects), folders=folders, wanted="the images of the JSON files"
    )


def _read(path: Path, files: ImageFiles, part: Part | None, entries: list[Entry], defects: list[Defect]) -> None:
    content = read_json(path)
    if not isinstance(content, dict) or not set(content) >= KEYS:
        raise DataError(f"{path}: must have images, annotations and categories; get the format: {COCO_WHERE}")
    try:
        names = {one["id"]: str(one["name"]) for one in content["categories"]}
        objects: dict[object, list[Mapping[str, Any]]] = defaultdict(list)
        for one in content["annotations"]:
            objects[one["image_id"]].append(one)
        images = [(one["id"], str(one["file_name"]), one.get("height"), one.get("width")) for one in content["images"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: an image, annotation or category lacks the key {error}") from None
    if strangers := set(objects) - {image[0] for image in images}:
        raise DataError(
            f"{path}: annotations of images that it does not list, such as image_id {min(map(str, strangers))}"
        )
    for number, name, height, width in images:
        image = files.find(name, near=(path.parent,))
        if image is None:
            defects.append(Defect(path=path.parent / name, problem=f"is listed in {path.name}, but does not exist"))
            continue
        try:
            shapes = tuple(_shape(one, names) for one in objects[number])
        except DataError as error:
            defects.append(Defect(path=image, problem=str(error)))
            continue
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        entries.append(
            Entry(id=Path(name).with_suffix("").as_posix(), image=image, masks=(), shapes=shapes, size=size, part=part)
        )


def _shape(one: Mapping[str, Any], names: Mapping[object, str]) -> Shape:
    what = f"annotation {one.get('id')}"
    if one.get("category_id") not in names:
        raise DataError(f"{what} has the category_id {one.get('category_id')}, which the file does not list")
    name, drawn = names[one["category_id"]], one.get("segmentation")
    if isinstance(drawn, list) and drawn and all(isinstance(part, list) for part in drawn):
        return Shape(name=name, outlines=tuple(outline_of(part, what=what) for part in drawn))
    if isinstance(drawn, dict) and isinstance(drawn.get("size"), list) and len(drawn["size"]) == 2:
        counts, (height, width) = drawn.get("counts"), drawn["size"]
        try:
            runs = runs_in(counts) if isinstance(counts, str) else tuple(int(count) for count in counts or ())
        except (TypeError, ValueError) as error:
            raise DataError(f"{what}: its run lengths cannot be read: {error}") from None
        return Shape(name=name, runs=runs, box=(0, 0, width, height))
    raise DataError(f"{what} has no segmentation, only a box; kdsearch needs outlines or run lengths")
