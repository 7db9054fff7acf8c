"""Reads CVAT for images 1.1: ``annotations.xml`` and the images."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from kdsearch.data.layout import Defect, Entry, Listing, Part
from kdsearch.data.pairing import PARTS
from kdsearch.data.shapes import ImageFiles, Shape, outline_of, rectangle
from kdsearch.errors import DataError, first_line

CVAT_WHERE = "CVAT's export 'CVAT for images 1.1'; the folder has annotations.xml and images/"
FILE = "annotations.xml"


def cvat_images(path: Path) -> list[ET.Element]:
    """Reads the images of a file; raises DataError."""
    try:
        text = path.read_text(encoding="utf-8")
        if "<!ENTITY" in text:
            raise DataError(f"{path}: defines entities, which no annotation file needs; export it again")
        root = ET.fromstring(text)  # noqa: S314 - entities are refused above
    except (OSError, ValueError, ET.ParseError) as error:
        raise DataError(f"{path}: cannot be read as XML: {first_line(error)}; expected {CVAT_WHERE}") from error
    if root.tag != "annotations":
        raise DataError(f"{path}: must be a file of CVAT for images, got <{root.tag}>; expected {CVAT_WHERE}")
    return root.findall("image")


def read_cvat(folder: Path, annotations: str | None = None) -> Listing:
    """Lists the images of the file; a subset such as ``Train`` is the part of the split."""
    path = folder / (annotations or FILE)
    entries, defects, files = list[Entry](), list[Defect](), ImageFiles(folder)
    for one in cvat_images(path):
        name = one.get("name", "")
        image = files.find(name)
        if image is None:
            defects.append(Defect(path=folder / name, problem=f"is listed in {path.name}, but does not exist"))
            continue
        try:
            shapes = tuple(_shape(shape) for shape in sorted(one, key=lambda shape: int(shape.get("z_order", 0))))
            size = int(one.get("height", "")), int(one.get("width", ""))
        except (DataError, ValueError) as error:
            defects.append(Defect(path=image, problem=f"its annotations cannot be read: {error}"))
            continue
        part: Part | None = PARTS.get(one.get("subset", "").lower())
        where = Path(name).with_suffix("").as_posix()
        entries.append(Entry(id=where, image=image, masks=(), shapes=shapes, size=size, part=part))
    folders = tuple(dict.fromkeys(entry.image.parent for entry in entries)) or (folder,)
    return Listing(entries=tuple(entries), defects=tuple(defects), folders=folders, wanted=f"the images of {FILE}")


def _shape(one: ET.Element) -> Shape:
    name = one.get("label", "")
    if one.tag == "polygon":
        numbers = [number for point in one.get("points", "").split(";") for number in point.split(",")]
        return Shape(name=name, outlines=(outline_of(numbers, what=f"a polygon of {name}"),))
    if one.tag == "box":
        left, top, right, bottom = (float(one.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
        return Shape(name=name, outlines=(rectangle(left, top, right, bottom),))
    if one.tag == "mask":
        left, top, width, height = (int(one.get(key, "")) for key in ("left", "top", "width", "height"))
        rows = tuple(int(run) for run in one.get("rle", "").split(","))
        return Shape(name=name, runs=_by_columns(rows, width=width, height=height), box=(left, top, width, height))
    raise DataError(f"a {one.tag} of {name}; kdsearch reads polygons, boxes and masks")


def _by_columns(rows: tuple[int, ...], *, width: int, height: int) -> tuple[int, ...]:
    """Turns runs row by row, as CVAT writes them, into runs column by column."""
    if min(rows) < 0 or sum(rows) != width * height:  # before memory is taken for them
        raise DataError(f"run lengths cover {sum(rows)} pixels, expected {width}×{height}")
    inside = [number % 2 for number, run in enumerate(rows) for _ in range(run)]
    columns = [inside[row * width + column] for column in range(width) for row in range(height)]
    runs, last = [0], 0
    for pixel in columns:
        if pixel != last:
            runs.append(0)
            last = pixel
        runs[-1] += 1
    return tuple(runs)
