"""Writes one data set in each annotation format: two images with a lesion and a cyst, and a negative image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from tests.data.pictures import write_image

SHAPE = (40, 50)
LESION, CYST = (5, 5, 30, 20), (20, 15, 45, 30)
"""Left, top, right and bottom, in pixels; the cyst covers a part of the lesion."""
NAMES = ("a b", "ü1", "negative")
RUNS = r"01\6>]J0000000000000000000000000000:F000000000000000007I0000000000000000000000000000l5"
"""Two boxes and the pixel in the corner, compressed by pycocotools 2.0.11."""


def wanted(name: str) -> np.ndarray:
    """The mask of an image, in class numbers."""
    mask = np.zeros(SHAPE, np.uint8)
    if name != "negative":
        for number, (left, top, right, bottom) in enumerate((LESION, CYST), start=1):
            mask[top:bottom, left:right] = number
    return mask


def _corners(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _objects(name: str) -> list[tuple[str, tuple[int, int, int, int]]]:
    return [] if name == "negative" else [("lesion", LESION), ("cyst", CYST)]


def write_coco(root: Path, names: Sequence[str] = NAMES) -> None:
    """``images/`` and ``annotations/instances.json``; the cyst has run lengths."""
    images, annotations = [], []
    for number, name in enumerate(names, start=1):
        write_image(root / "images" / f"{name}.png", shape=SHAPE, seed=number)
        images.append({"id": number, "file_name": f"{name}.png", "height": SHAPE[0], "width": SHAPE[1]})
        for label, box in _objects(name):
            drawn: object = [[value for point in _corners(box) for value in point]]
            if label == "cyst":
                inside = (wanted(name) == 2).T.ravel()
                changes = np.flatnonzero(np.diff(inside)) + 1
                drawn = {"size": list(SHAPE), "counts": np.diff([0, *changes, inside.size]).tolist()}
            category = ("lesion", "cyst").index(label) + 7
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category, "segmentation": drawn}
            )
    categories = [{"id": 7, "name": "lesion"}, {"id": 8, "name": "cyst"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances.json").write_text(json.dumps(content), encoding="utf-8")


def write_yolo(root: Path) -> None:
    """``images/train``, ``labels/train`` and ``data.yaml``; the negative image has no label file."""
    for number, name in enumerate(NAMES, start=1):
        write_image(root / "images" / "train" / f"{name}.png", shape=SHAPE, seed=number)
        lines = []
        for label, box in _objects(name):
            scaled = [f"{x / SHAPE[1]:.6f} {y / SHAPE[0]:.6f}" for x, y in _corners(box)]
            lines.append(" ".join([str(("lesion", "cyst").index(label)), *scaled]))
        if lines:
            (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
            (root / "labels" / "train" / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    content = {"path": "/elsewhere", "train": "images/train", "val": None, "names": {0: "lesion", 1: "cyst"}}
    (root / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def write_labelme(root: Path) -> None:
    """A JSON file next to each image; the lesion is a rectangle."""
    for number, name in enumerate(NAMES, start=1):
        write_image(root / f"{name}.png", shape=SHAPE, seed=number)
        shapes = []
        for label, box in _objects(name):
            corners = _corners(box)
            kind = "rectangle" if label == "lesion" else "polygon"
            points = [corners[2], corners[0]] if kind == "rectangle" else corners
            shapes.append({"label": label, "points": points, "shape_type": kind})
        content = {"imagePath": f"{name}.png", "imageHeight": SHAPE[0], "imageWidth": SHAPE[1], "shapes": shapes}
        (root / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def write_cvat(root: Path) -> None:
    """``annotations.xml``; the cyst is a mask with run lengths."""
    parts = []
    for number, name in enumerate(NAMES):
        write_image(root / "images" / f"{name}.png", shape=SHAPE, seed=number)
        shapes = ""
        for label, (left, top, right, bottom) in _objects(name):
            if label == "lesion":
                shapes += f'<box label="lesion" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}" z_order="0"/>'
            else:
                width, height = right - left, bottom - top
                shapes += (
                    f'<mask label="cyst" rle="0, {width * height}" left="{left}" top="{top}" width="{width}" '
                    f'height="{height}" z_order="1"/>'
                )
        parts.append(f'<image id="{number}" name="{name}.png" width="{SHAPE[1]}" height="{SHAPE[0]}">{shapes}</image>')
    text = f'<?xml version="1.0"?><annotations><version>1.1</version>{"".join(parts)}</annotations>'
    (root / "annotations.xml").write_text(text, encoding="utf-8")


WRITERS = {"coco": write_coco, "yolo": write_yolo, "labelme": write_labelme, "cvat": write_cvat}
"""By the name of the reader."""
