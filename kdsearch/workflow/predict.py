"""Masks of images, at their own size."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kdsearch.data.pixels import SUFFIXES, read_grey
from kdsearch.errors import KdsearchError, writing
from kdsearch.export.loading import LoadedStudent, shares_of
from kdsearch.report.overlays import outlined

LEAST_SIDE = 256
"""Overlays of smaller images are enlarged to it."""
FULL = 2**16 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToMark:
    """One image and where its mask goes."""

    image: Path
    place: Path
    """Without the ending that says what it is."""


def find_images(names: list[str], out: Path) -> list[ImageToMark]:
    """The images that files, folders and patterns stand for, each once.

    Raises KdsearchError where one stands for nothing or two images would be written to one place.
    """
    places: dict[Path, Path] = {}
    for name in names:
        found = _expand(name, out)
        if not found:
            missing = not Path(name).exists() and not glob.has_magic(name)
            what = "no such file or folder" if missing else f"no image there; images end in {', '.join(SUFFIXES)}"
            raise KdsearchError(f"{name}: {what}")
        for image, below in found:
            place = out / below.with_suffix("")
            if places.setdefault(place, image).resolve() != image.resolve():
                raise KdsearchError(
                    f"{places[place]} and {image} would both be written to {place}_mask.png; predict them into two "
                    "folders"
                )
    return [ImageToMark(image=image, place=place) for place, image in places.items()]


def _expand(name: str, out: Path) -> list[tuple[Path, Path]]:
    """Images and their names below the folder they were found in; what was written below ``out`` is none.

    Raises KdsearchError where a folder's masks would lie among its images.
    """
    path = Path(name)
    if path.is_dir():
        whole, written = path.resolve(), out.resolve()
        if whole == written:
            raise KdsearchError(f"--out {out}: holds the images to be read; name another folder")
        images = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        below = written.is_relative_to(whole)
        inside = sorted(file for file in images if not (below and file.resolve().is_relative_to(written)))
        return [(file, file.relative_to(path)) for file in inside]
    if path.exists():
        return [(path, Path(path.name))]
    return [(Path(file), Path(Path(file).name)) for file in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 - a pattern may be absolute


def predict(student: LoadedStudent, wanted: ImageToMark, *, probabilities: bool) -> None:
    """Writes the image's mask and overlay, and the probabilities where they are wanted.

    Raises DataError where the image cannot be read, KdsearchError where its mask cannot be written.
    """
    grey = read_grey(wanted.image, whites=student.description.input.whites)
    logits = student.logits(grey)
    mask = logits > 0
    with writing(wanted.place):
        wanted.place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(_named(wanted.place, "mask"))
        outlined(grey, None, mask, side=LEAST_SIDE).save(_named(wanted.place, "overlay"))
        if probabilities:
            Image.fromarray((shares_of(logits) * FULL).round().astype(np.uint16)).save(
                _named(wanted.place, "probability")
            )


def _named(place: Path, what: str) -> Path:
    return place.with_name(f"{place.name}_{what}.png")
