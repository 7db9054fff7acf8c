"""What readers share: finding a folder, pairing images with masks, reading the CSV tables that come with data sets."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from kdsearch.data.entry import Defect, Entry, Listing
from kdsearch.data.pixels import SUFFIXES
from kdsearch.errors import DataError, nearest


def require_folder(folder: Path, expected: Sequence[str], *, inside: str | None = None, where: str) -> Path:
    """The folder that holds all of ``expected``: the one given, or ``inside`` it; raises DataError otherwise."""
    candidates = [folder, folder / inside] if inside else [folder]
    for candidate in candidates:
        if all((candidate / name).exists() for name in expected):
            return candidate
    state = "does not hold" if folder.is_dir() else "is not a folder; it should hold"
    raise DataError(f"{folder} {state} {', '.join(expected)}; get the data: {where}")


def read_table(path: Path, *, key: str, columns: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """Rows by their value in column ``key``; raises DataError for a missing file or column and for a repeated key."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = list(reader)
    except FileNotFoundError:
        raise DataError(f"{path}: no such table") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    for column in (key, *columns):
        if column not in names:
            raise DataError(
                f"{path}: has no column {column!r}; its columns are {', '.join(names)}{nearest(column, names)}"
            )
    table: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows, start=2):
        if row[key] in table:
            raise DataError(f"{path}:{line}: {key} {row[key]!r} stands twice")
        table[row[key]] = {name: value.strip() for name, value in row.items() if name and value}
    return table


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
    mask_files = _by_stem(masks)
    entries: list[Entry] = []
    defects: list[Defect] = []
    for stem, files in _by_stem(images).items():
        found = mask_files.pop(mask_stem(stem), [])
        if len(files) > 1:
            defects.append(Defect(path=files[1], problem=f"has the same name as {files[0].name}"))
        elif known is not None and stem not in known:
            defects.append(Defect(path=files[0], problem="is not in the table, so its patient is not known"))
        elif found:
            entry = Entry(id=stem, image=files[0], masks=tuple(found), label=label_of(stem), group=group_of(stem))
            entries.append(entry)
        else:
            defects.append(Defect(path=files[0], problem=f"has no mask ({mask_stem(stem)} in {masks})"))
    defects += [Defect(path=files[0], problem=f"has no image in {images}") for files in mask_files.values()]
    return Listing(entries=tuple(entries), defects=tuple(defects))


def list_images(
    images: Path,
    *,
    label_of: Callable[[str], str | None] = lambda _: None,
    group_of: Callable[[str], str | None] = lambda _: None,
    known: Collection[str] | None = None,
) -> Listing:
    """Every image, whatever masks there are; a stem that stands twice, or is not among the ``known``, is a defect."""
    entries: list[Entry] = []
    defects: list[Defect] = []
    for stem, files in _by_stem(images).items():
        if len(files) > 1:
            defects.append(Defect(path=files[1], problem=f"has the same name as {files[0].name}"))
        elif known is not None and stem not in known:
            defects.append(Defect(path=files[0], problem="is not in the table, so its patient is not known"))
        else:
            entries.append(Entry(id=stem, image=files[0], masks=(), label=label_of(stem), group=group_of(stem)))
    return Listing(entries=tuple(entries), defects=tuple(defects))


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    return found
