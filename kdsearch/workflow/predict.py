"""Predicts the masks of image files, at original resolution."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdsearch.data.dicom import ENDINGS as DICOM
from kdsearch.data.dicom import header, is_dicom
from kdsearch.data.pixels import SUFFIXES, read_pixels
from kdsearch.errors import DataError, KdsearchError, writing
from kdsearch.export.loading import Student, classes_of, shares_of
from kdsearch.report.overlays import class_colors, colored, outlined

LEAST_SIDE = 256
"""Overlays of smaller images are enlarged to this size."""
FULL = 2**16 - 1
MASK = re.compile(r"(.+)_mask(?:_\d+)?")
"""How published data sets and ``predict`` name a mask that is next to its image."""
IMAGE, FOLDER = "images", "folders"
ENDINGS = (*SUFFIXES, *DICOM)
"""Endings of image files; other files are images if they have the marks of DICOM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToMark:
    """An image, and where its mask is written."""

    image: Path
    place: Path
    """Path of the output files, without endings such as ``_mask.png``."""
    frame: int = 0
    """Which frame of a DICOM clip, counted from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImages:
    """The images in files, folders and patterns."""

    images: tuple[ImageToMark, ...]
    passed_over: tuple[str, ...]
    """What else is in the folders: the number of each kind, and an example."""


def find_images(names: list[str], out: Path) -> FoundImages:
    """Finds the images in files, folders and patterns, each once.

    In folders, masks next to their images are skipped. Raises KdsearchError if a name matches nothing, or two images
    would have the same output files.
    """
    places: dict[Path, Path] = {}
    passed: dict[str, list[Path]] = {}
    for name in names:
        found = _expand(name, out, passed)
        if not found:
            missing = not Path(name).exists() and not glob.has_magic(name)
            what = "no such file or folder" if missing else f"no images found; images end in {', '.join(ENDINGS)}"
            raise KdsearchError("; ".join([f"{name}: {what}", *_counts(passed)]))
        for image, below in found:
            place = out / (below if _is_dicom(image) and below.suffix.lower() not in DICOM else below.with_suffix(""))
            if places.setdefault(place, image).resolve() != image.resolve():
                raise KdsearchError(
                    f"{places[place]} and {image} would both be written to {place}_mask.png; predict them separately, "
                    "with different --out folders"
                )
    images = tuple(one for place, image in places.items() for one in _frames(image, place))
    return FoundImages(images=images, passed_over=tuple(_counts(passed)))


def _frames(image: Path, place: Path) -> Iterator[ImageToMark]:
    """An image, or each frame of a DICOM clip."""
    count = 1
    with contextlib.suppress(DataError):  # reported when the image is read
        count = header(image).frames if _is_dicom(image) else 1
    for frame in range(count):
        numbered = place if count == 1 else place.with_name(f"{place.name}_{frame + 1:04d}")
        yield ImageToMark(image=image, place=numbered, frame=frame)


def _is_dicom(file: Path) -> bool:
    return file.suffix.lower() not in SUFFIXES and is_dicom(file)


def _counts(passed: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    for kind, paths in sorted(passed.items()):
        yield f"skipped {kind}: {len(paths)}, such as {paths[0]}"


def _expand(name: str, out: Path, passed: dict[str, list[Path]]) -> list[tuple[Path, Path]]:
    """Images and their paths relative to the folder they were found in, without those below ``out``.

    Adds what else is in a folder to ``passed``. Raises KdsearchError if masks would be written among the images.
    """
    path = Path(name)
    if path.is_dir():
        whole, written = path.resolve(), out.resolve()
        if whole == written:
            raise KdsearchError(f"--out {out}: is the folder of the images; choose another folder")
        below = written.is_relative_to(whole)
        inside = [file for file in sorted(path.rglob("*")) if not (below and file.resolve().is_relative_to(written))]
        stems = {file.with_suffix("") for file in inside if file.suffix.lower() in ENDINGS}
        kinds = {file: _kind(file, stems) for file in inside}
        for file, kind in kinds.items():
            if kind not in (IMAGE, FOLDER):
                passed.setdefault(kind, []).append(file)
        return [(file, file.relative_to(path)) for file, kind in kinds.items() if kind == IMAGE]
    if path.exists():
        return [(path, Path(path.name))]
    return [(Path(file), Path(Path(file).name)) for file in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 - a pattern may be absolute


def _kind(file: Path, stems: Collection[Path]) -> str:
    """The kind of a file; ``stems`` are the paths of all possible images, without endings."""
    if file.is_dir():
        if file.is_symlink():
            return "linked folders"
        return FOLDER if os.access(file, os.R_OK | os.X_OK) else "folders that cannot be read"
    if not file.exists():
        return "broken links"
    if not file.is_file():
        return "pipes or devices"
    if file.name.startswith("."):
        return "hidden files"
    if file.suffix.lower() not in SUFFIXES and not is_dicom(file):
        return "files with other endings"
    mask = MASK.fullmatch(file.stem)
    return "masks next to their images" if mask and file.with_name(mask[1]) in stems else IMAGE


def predict(student: Student, wanted: ImageToMark, *, probabilities: bool) -> None:
    """Writes the image's mask and overlay and, with ``probabilities``, the probabilities of each class.

    Raises DataError if the image cannot be read, KdsearchError if the files cannot be written.
    """
    pixels = read_pixels(
        wanted.image,
        channels=student.description.input.channels,
        whites=student.description.input.whites,
        frame=wanted.frame,
    )
    logits = student.logits(pixels)
    mask, overlay = _drawn(pixels, classes_of(logits), several=len(student.classes) > 1)
    with writing(wanted.place):
        wanted.place.parent.mkdir(parents=True, exist_ok=True)
        mask.save(_named(wanted.place, "mask"))
        overlay.save(_named(wanted.place, "overlay"))
        if probabilities:
            shares = shares_of(logits)
            named = zip(student.classes, shares[1:], strict=True) if shares.ndim == 3 else [("", shares)]
            for name, share in named:
                what = f"probability_{_in_file_name(name)}" if name else "probability"
                Image.fromarray((share * FULL).round().astype(np.uint16)).save(_named(wanted.place, what))


def _drawn(
    pixels: npt.NDArray[np.uint8], mask: npt.NDArray[np.generic], *, several: bool
) -> tuple[Image.Image, Image.Image]:
    """Returns the mask and the overlay; the mask of several classes holds their numbers, with a palette."""
    if not several:
        drawn = outlined(pixels, None, mask.astype(np.bool_), side=LEAST_SIDE)
        return Image.fromarray(mask.astype(np.uint8) * 255), drawn
    numbers = mask.astype(np.uint8)
    indexed = Image.fromarray(numbers, mode="P")
    indexed.putpalette([level for color in [(0, 0, 0), *class_colors(255)] for level in color])
    return indexed, colored(pixels, numbers, side=LEAST_SIDE)


def _in_file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _named(place: Path, what: str) -> Path:
    return place.with_name(f"{place.name}_{what}.png")
