"""Lists folders of images and masks, and pairs each image with its masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from PIL import Image

from kdsearch.data.dicom import is_dicom
from kdsearch.data.pixels import SUFFIXES, decoded
from kdsearch.data.shapes import Shape
from kdsearch.data.tables import normal
from kdsearch.errors import DataError

Part = Literal["train", "validation", "test"]
"""A part of a split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image of a source and the files that belong to it."""

    id: str
    """Unique within the source and the same on every machine."""
    image: Path
    masks: tuple[Path, ...]
    """The masks are merged; no masks mean a negative image."""
    classes: tuple[str, ...] = ()
    """The class that each mask shows; empty if the masks' values tell."""
    shapes: tuple[Shape, ...] = ()
    """Objects of an annotation file, in the order in which they are drawn."""
    size: tuple[int, int] | None = None
    """Height and width of the image according to the annotation file; None if it does not state them."""
    label: str | None = None
    group: str | None = None
    """For example the patient; None if unknown."""
    kin: str | None = field(default=None, repr=False)
    """Tells groups apart across sources. Only in memory, because it may identify a patient."""
    part: Part | None = None
    """The part of the split that the data set puts the image in; None leaves it to kdsearch."""
    frame: int = 0
    """Which frame of a clip the image is, counted from 0."""
    mask_frames: tuple[int, ...] = ()
    """Which frame of its file each mask is; empty if each file holds one mask."""
    spacing_mm: float | None = None
    """Millimeters per pixel of the file, if the file states them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that annotations and masks of one class each show."""
        return (*self.classes, *(shape.name for shape in self.shapes))

    def picture(self) -> Image.Image:
        """Decodes the image; raises DataError if that fails."""
        return decoded(self.image, self.frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images and the defects that a reader found in a folder."""

    entries: tuple[Entry, ...]
    defects: tuple[Defect, ...] = ()
    folders: tuple[Path, ...] = ()
    """The folders with the images and masks."""
    known: tuple[Path, ...] = ()
    """Files in these folders that are left out on purpose, such as masks of other structures."""
    wanted: str = ""
    """The files that the reader expects there, for errors."""
    remarks: tuple[Remark, ...] = ()
    """What else a user should know about the files."""

    @property
    def files(self) -> list[Path]:
        """All images and masks of the entries."""
        return [path for entry in self.entries for path in (entry.image, *entry.masks)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """A file that cannot be used."""

    path: Path
    problem: str
    """Part of the fingerprint of a listing, so readers must not reword it."""
    hint: str = ""
    """More about the problem; not part of a fingerprint."""

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.problem}{self.hint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Files or images that were left out or changed, which a user should know."""

    what: str
    """The text after their number."""
    names: tuple[str, ...]
    quiet: bool = False
    """Whether to report only their number, as for hidden files of an operating system."""

    def __str__(self) -> str:
        return f"{len(self.names)} {self.what}"


def shown(path: Path | str) -> str:
    """Converts a path to valid text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Reader(Protocol):
    """Lists a published data set's folder; raises DataError if the layout is missing."""

    def __call__(self, folder: Path) -> Listing: ...


class AnnotationReader(Protocol):
    """Lists a folder of images with annotation files; raises DataError if there are none."""

    def __call__(self, folder: Path, annotations: str | None = None) -> Listing: ...


FORMATS = "PNG, JPEG, TIFF and BMP"
"""The formats of ``SUFFIXES``."""
VOLUMES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
NOT_UTF_8 = "its name is not UTF-8; rename it"


def require_folder(folder: Path, expected: Sequence[str], *, inside: str | None = None, where: str) -> Path:
    """Returns ``folder``, or ``inside`` it, if it contains all of ``expected``; raises DataError otherwise."""
    candidates = [folder, folder / inside] if inside else [folder]
    for candidate in candidates:
        if all((candidate / name).exists() for name in expected):
            return candidate
    state = "must contain" if folder.is_dir() else "is not a folder; it must contain"
    raise DataError(f"{folder} {state} {', '.join(expected)}; get the data: {where}")


def pair_by_stem(
    images: Path,
    masks: Path,
    *,
    mask_stem: Callable[[str], str] = lambda stem: stem,
    label_of: Callable[[str], str | None] = lambda _: None,
    group_of: Callable[[str], str | None] = lambda _: None,
    known: Collection[str] | None = None,
) -> Listing:
    """Pairs every image with the mask of the same stem.

    Defects are images without a mask, masks without an image, duplicate stems, and images that are not in ``known``.
    """
    mask_files, entries = _by_stem(masks), list[Entry]()
    defects = [*_misnamed(images), *_misnamed(masks)]
    for files in _by_stem(images).values():
        stem = files[0].stem
        found = mask_files.pop(normal(mask_stem(stem)), [])
        if len(files) > 1:
            defects.append(Defect(path=files[1], problem=f"has the same name as {files[0].name}"))
        elif known is not None and normal(stem) not in known:
            defects.append(Defect(path=files[0], problem="is not in the table, so its patient is not known"))
        elif found:
            entry = Entry(id=stem, image=files[0], masks=tuple(found), label=label_of(stem), group=group_of(stem))
            entries.append(entry)
        else:
            defects.append(
                Defect(
                    path=files[0],
                    problem=f"has no mask ({mask_stem(stem)} in {masks})",
                    hint=_other_kind(masks, mask_stem(stem)),
                )
            )
    defects += [
        Defect(path=files[0], problem=f"has no image in {images}", hint=_other_kind(images, files[0].stem))
        for files in mask_files.values()
    ]
    wanted = f"{FORMATS} files in {images.name}/ and masks of the same names in {masks.name}/"
    return Listing(entries=tuple(entries), defects=tuple(defects), folders=(images, masks), wanted=wanted)


def list_images(
    images: Path,
    *,
    label_of: Callable[[str], str | None] = lambda _: None,
    group_of: Callable[[str], str | None] = lambda _: None,
    known: Collection[str] | None = None,
) -> Listing:
    """Lists every image without masks; duplicate stems, and stems that are not in ``known``, are defects."""
    entries: list[Entry] = []
    defects = _misnamed(images)
    for files in _by_stem(images).values():
        stem = files[0].stem
        if len(files) > 1:
            defects.append(Defect(path=files[1], problem=f"has the same name as {files[0].name}"))
        elif known is not None and normal(stem) not in known:
            defects.append(Defect(path=files[0], problem="is not in the table, so its patient is not known"))
        else:
            entries.append(Entry(id=stem, image=files[0], masks=(), label=label_of(stem), group=group_of(stem)))
    return Listing(entries=tuple(entries), defects=tuple(defects), folders=(images,), wanted=f"{FORMATS} files")


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Lists files by their stems, in NFC."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not is_hidden(path) and is_utf_8(path.name):
            found.setdefault(normal(path.stem), []).append(path)
    return found


def other_formats(root: Path) -> str:
    """Says what reads the files in a folder, or below it, that are no images; empty if there are none such."""
    for path in root.rglob("*"):
        name = path.name.lower()
        if name.endswith(VOLUMES):
            return (
                f"{shown(path)} is a volume; save the slices as PNG, such as with nibabel (docs/how-to/nnunet-data.md)"
            )
        if not name.endswith(SUFFIXES) and path.is_file() and is_dicom(path):
            return f"{shown(path)} is a DICOM file; write reader: dicom"
    return ""


def stems(folder: Path) -> tuple[str, ...]:
    """Lists the stems of the folder's images."""
    return tuple(_by_stem(folder))


def is_hidden(path: Path) -> bool:
    """Returns whether a file is hidden, such as the ``._a.png`` that macOS puts next to ``a.png`` in archives."""
    return path.name.startswith(".")


def is_utf_8(name: str) -> bool:
    """Returns whether the bytes of the name are valid UTF-8."""
    return not any("\udc80" <= letter <= "\udcff" for letter in name)


def _misnamed(folder: Path) -> list[Defect]:
    return [
        Defect(path=path, problem=NOT_UTF_8)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not is_hidden(path) and not is_utf_8(path.name)
    ]


def _other_kind(folder: Path, stem: str) -> str:
    """Explains that a file with this stem exists but has an unsupported format."""
    found = next((path for path in sorted(folder.iterdir()) if path.stem == stem and path.is_file()), None)
    if found is None or found.suffix.lower() in SUFFIXES:
        return ""
    return f"; {found.name} is not read, because only {FORMATS} are supported"


def passed_over(listing: Listing) -> tuple[Remark, ...]:
    """Lists files in the listing's folders that are neither read nor defects."""
    counted = {*listing.files, *listing.known, *(defect.path for defect in listing.defects)}
    hidden, below, other = list[str](), list[str](), list[Path]()
    for folder in dict.fromkeys(listing.folders):
        for path in sorted(folder.iterdir()):
            if path in counted or path in listing.folders:
                continue
            if is_hidden(path):
                hidden.append(shown(path))
            elif path.is_dir():
                files = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES)
                below += [shown(file) for file in files if file not in counted]
            else:
                other.append(path)
    endings = Counter(path.suffix.lower() or "no ending" for path in other)
    kinds = ", ".join(ending for ending, _ in endings.most_common(4)) + (", …" if len(endings) > 4 else "")
    found = (
        Remark(
            what=f"files in image folders that are ignored ({kinds}; kdsearch reads {FORMATS} files named like images)",
            names=tuple(map(shown, other)),
        ),
        Remark(what="images in subfolders, which are ignored; move them up", names=tuple(below)),
        Remark(what="hidden files, which are ignored", names=tuple(hidden), quiet=True),
    )
    return (*listing.remarks, *(one for one in found if one.names))
