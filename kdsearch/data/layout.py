"""Folders of images and masks, and how one is found for the other."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdsearch.data.pixels import SUFFIXES
from kdsearch.data.tables import NAMED, normal, read_table, rows_by_stem
from kdsearch.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image of a source and the files that belong to it."""

    id: str
    """Unique within the source and the same on every machine."""
    image: Path
    masks: tuple[Path, ...]
    """The lesion is their union; empty where the image is known to hold no lesion."""
    label: str | None = None
    group: str | None = None
    """Patient, or None where nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All a reader found in a folder, and what it found wrong there."""

    entries: tuple[Entry, ...]
    defects: tuple[Defect, ...] = ()
    folders: tuple[Path, ...] = ()
    """Those whose files are the images and masks."""
    known: tuple[Path, ...] = ()
    """Files in them that are left out on purpose, such as masks of other structures."""
    wanted: str = ""
    """What the reader looks for in them, for errors."""

    @property
    def files(self) -> list[Path]:
        """Images and masks that are to be read."""
        return [path for entry in self.entries for path in (entry.image, *entry.masks)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One file that cannot be used as it is."""

    path: Path
    problem: str
    hint: str = ""
    """More about it, which does not count in a fingerprint."""

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.problem}{self.hint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Files or images that were left out or changed, and that a user should know of."""

    what: str
    """Follows their number."""
    names: tuple[str, ...]
    quiet: bool = False
    """Whether they are counted only, such as hidden files of an operating system."""

    def __str__(self) -> str:
        return f"{len(self.names)} {self.what}"


def shown(path: Path | str) -> str:
    """The path as text that any terminal takes; bytes that are no UTF-8 are shown by their numbers."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Reader(Protocol):
    """Lists a published data set's folder; raises DataError where the layout is not there."""

    def __call__(self, folder: Path) -> Listing: ...


FORMATS = "PNG, JPEG, TIFF and BMP"
"""What ``SUFFIXES`` stand for."""
NOT_UTF_8 = "its name is not UTF-8; rename it"


def require_folder(folder: Path, expected: Sequence[str], *, inside: str | None = None, where: str) -> Path:
    """The folder that holds all of ``expected``: the one given, or ``inside`` it; raises DataError otherwise."""
    candidates = [folder, folder / inside] if inside else [folder]
    for candidate in candidates:
        if all((candidate / name).exists() for name in expected):
            return candidate
    state = "does not hold" if folder.is_dir() else "is not a folder; it should hold"
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
    """Every image with the mask of the same stem.

    An image without a mask, a mask without an image, a stem that stands twice, and an image that is not among the
    ``known`` are defects.
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
    """Every image, whatever masks there are; a stem that stands twice, or is not among the ``known``, is a defect."""
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
    """Files by their names without ending, in Unicode's composed form."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not is_hidden(path) and is_utf_8(path.name):
            found.setdefault(normal(path.stem), []).append(path)
    return found


def stems(folder: Path) -> tuple[str, ...]:
    """Names of the folder's images without ending."""
    return tuple(_by_stem(folder))


def is_hidden(path: Path) -> bool:
    """Whether it is a hidden file, such as the ``._a.png`` that macOS puts next to ``a.png`` in archives."""
    return path.name.startswith(".")


def is_utf_8(name: str) -> bool:
    """Whether the bytes of the name can be shown and stored."""
    return not any("\udc80" <= letter <= "\udcff" for letter in name)


def _misnamed(folder: Path) -> list[Defect]:
    return [
        Defect(path=path, problem=NOT_UTF_8)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not is_hidden(path) and not is_utf_8(path.name)
    ]


def _other_kind(folder: Path, stem: str) -> str:
    """What lies there under that name and is not read."""
    found = next((path for path in sorted(folder.iterdir()) if path.stem == stem and path.is_file()), None)
    return "" if found is None or found.suffix.lower() in SUFFIXES else f"; {found.name} is not read, only {FORMATS}"


def passed_over(listing: Listing) -> tuple[Remark, ...]:
    """What lies in the listing's folders and is neither read nor a defect."""
    counted = {*listing.files, *listing.known, *(defect.path for defect in listing.defects)}
    hidden, below, other = list[str](), list[str](), list[Path]()
    for folder in dict.fromkeys(listing.folders):
        for path in sorted(folder.iterdir()):
            if path in counted or path in listing.folders:
                continue
            if is_hidden(path):
                hidden.append(shown(path))
            elif path.is_dir():
                below += [shown(file) for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES]
            else:
                other.append(path)
    endings = Counter(path.suffix.lower() or "no ending" for path in other)
    kinds = ", ".join(ending for ending, _ in endings.most_common(4)) + (", …" if len(endings) > 4 else "")
    found = (
        Remark(
            what=f"files in image folders that are not read ({kinds}; read are {FORMATS} files named like images)",
            names=tuple(map(shown, other)),
        ),
        Remark(what="images in sub-folders, which are not read; move them up", names=tuple(below)),
        Remark(what="hidden files, which are not read", names=tuple(hidden), quiet=True),
    )
    return tuple(one for one in found if one.names)


FOLDER_WHERE = "put images into images/ and masks of the same names into masks/"


def read_folder(folder: Path, *, csv: str | None = None, masks: bool = True) -> Listing:
    """Lists ``images/`` and ``masks/``; the table ``csv`` has a column ``image`` and any of ``group``, ``label``.

    Without ``masks`` nobody looks for those.
    """
    root = require_folder(folder, ("images", "masks") if masks else ("images",), where=FOLDER_WHERE)
    return _with_table(root, root / "images", root / "masks" if masks else None, csv=csv)


def read_images(folder: Path, *, csv: str | None = None) -> Listing:
    """Lists the folder's own images, without masks; ``csv`` as of ``read_folder``."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; put images into it")
    return _with_table(folder, folder, None, csv=csv)


def _with_table(root: Path, images: Path, masks: Path | None, *, csv: str | None) -> Listing:
    table = read_table(root / csv, key="image") if csv else None
    rows = rows_by_stem(table, stems(images)) if table else {}
    known = rows if csv else None

    def label_of(stem: str) -> str | None:
        return rows.get(normal(stem), {}).get("label")

    def group_of(stem: str) -> str | None:
        return rows.get(normal(stem), {}).get("group")

    if masks is None:
        listing = list_images(images, label_of=label_of, group_of=group_of, known=known)
    else:
        listing = pair_by_stem(images, masks, label_of=label_of, group_of=group_of, known=known)
    there = {entry.id for entry in listing.entries} | {defect.path.stem for defect in listing.defects}
    strangers = set(rows) - {normal(stem) for stem in there}
    if strangers:
        raise DataError(
            f"{root / (csv or '')}: names images that are not there: {', '.join(sorted(strangers)[:NAMED])}"
        )
    return listing
