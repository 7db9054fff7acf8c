"""Reads a plain folder of images and masks, with or without a table."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdsearch.data.layout import Defect, Entry, Listing, Part, list_images, pair_by_stem, stems
from kdsearch.data.pairing import FOLDER_WHERE, PARTS, pair_anywhere, pair_by_patterns
from kdsearch.data.pixels import SUFFIXES
from kdsearch.data.tables import NAMED, Table, normal, plain_name, read_table, rows_by_stem
from kdsearch.errors import DataError


def read_folder(
    folder: Path,
    *,
    csv: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    with_masks: bool = True,
) -> Listing:
    """Lists a folder's images, with their masks if ``with_masks``; raises DataError if there are none.

    A table ``csv`` has a column ``image`` and may have ``mask``, ``group``, ``label`` and ``split``; with
    a column ``mask``, it alone says what belongs together. ``images`` and ``masks`` are patterns of paths
    below the folder, in which ``{name}`` is the part that both have in common.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; {FOLDER_WHERE}")
    table = read_table(folder / csv, key="image") if csv else None
    if table is not None and "mask" in table.columns:
        return _listed(folder, table, with_masks=with_masks)
    if images is not None and masks is not None:
        listing = pair_by_patterns(folder, images, masks)
    elif (plain := _plain(folder, table, with_masks=with_masks)) is not None:
        return plain
    elif with_masks:
        listing = pair_anywhere(folder)
    else:
        raise DataError(f"{folder} has no folder images; put images into images/, or use reader: images")
    return listing if table is None else _with_table(listing, table, folder)


def read_images(folder: Path, *, csv: str | None = None) -> Listing:
    """Lists the images in the folder, without masks; a table ``csv`` as for ``read_folder``."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; put images into it")
    return _in_one_folder(folder, None, read_table(folder / csv, key="image") if csv else None)


def _plain(folder: Path, table: Table | None, *, with_masks: bool) -> Listing | None:
    """Pairs ``images/`` with ``masks/`` by stem; None if there are no such folders, or none of their files match."""
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() or (with_masks and not masks.is_dir()):
        return None
    listing = _in_one_folder(images, masks if with_masks else None, table)
    return listing if listing.entries or not with_masks or not _pairs_anywhere(folder) else None


def _pairs_anywhere(folder: Path) -> bool:
    try:
        return bool(pair_anywhere(folder).entries)
    except DataError:
        return False


def _in_one_folder(images: Path, masks: Path | None, table: Table | None) -> Listing:
    rows = rows_by_stem(table, stems(images)) if table else {}
    known = rows if table else None

    def label_of(stem: str) -> str | None:
        return rows.get(normal(stem), {}).get("label")

    def group_of(stem: str) -> str | None:
        return rows.get(normal(stem), {}).get("group")

    if masks is None:
        listing = list_images(images, label_of=label_of, group_of=group_of, known=known)
    else:
        listing = pair_by_stem(images, masks, label_of=label_of, group_of=group_of, known=known)
    if table is None:
        return listing
    there = {entry.id for entry in listing.entries} | {defect.path.stem for defect in listing.defects}
    strangers = set(rows) - {normal(stem) for stem in there}
    if strangers:
        raise DataError(f"{table.path}: lists images that do not exist: {', '.join(sorted(strangers)[:NAMED])}")
    parts = {stem: part for stem, row in rows.items() if (part := part_of(row, table)) is not None}
    entries = tuple(dataclasses.replace(entry, part=parts.get(normal(entry.id))) for entry in listing.entries)
    return dataclasses.replace(listing, entries=entries)


def _listed(root: Path, table: Table, *, with_masks: bool) -> Listing:
    """Takes images and masks from the table's columns ``image`` and ``mask``; an empty cell is a negative image."""
    entries, defects = list[Entry](), list[Defect]()
    for name, row in table.rows.items():
        image, mask = root / name, root / row["mask"] if "mask" in row else None
        missing = next((path for path in (image, mask) if path is not None and not path.is_file()), None)
        if missing is not None:
            raise DataError(
                f"{table.path}: image {name!r}: {missing} does not exist; correct the path or remove the row"
            )
        entries.append(
            Entry(
                id=str(Path(name).with_suffix("")) if image.suffix.lower() in SUFFIXES else name,
                image=image,
                masks=(mask,) if with_masks and mask is not None else (),
                label=row.get("label"),
                group=row.get("group"),
                part=part_of(row, table),
            )
        )
    if with_masks and not any(entry.masks for entry in entries):
        raise DataError(f"{table.path}: column 'mask' is empty in every row; fill it in or remove the column")
    folders = tuple(dict.fromkeys(path.parent for entry in entries for path in (entry.image, *entry.masks)))
    return Listing(entries=tuple(entries), defects=tuple(defects), folders=folders, wanted=f"the files of {table.path}")


def _with_table(listing: Listing, table: Table, root: Path) -> Listing:
    """Adds each image's group, label and part from its row; an image without a row is a defect.

    A row names an image by its id, by its path below the root, or only by its name if that is unique.
    """
    known, rows = _names(listing.entries, root), dict[int, dict[str, str]]()
    unusable = {normal(defect.path.stem) for defect in listing.defects}
    strangers = list[str]()
    for key, row in table.rows.items():
        places = next((known[name] for name in (normal(_bare(key)), plain_name(key)) if name in known), set[int]())
        if len(places) > 1:
            raise DataError(f"{table.path}: several images are called {key!r}; write their paths below {root}")
        if places:
            rows[next(iter(places))] = row
        elif plain_name(key) not in unusable:
            strangers.append(key)
    if strangers:
        raise DataError(f"{table.path}: lists images that do not exist: {', '.join(sorted(strangers)[:NAMED])}")
    entries, defects = list[Entry](), list(listing.defects)
    for place, entry in enumerate(listing.entries):
        if place in rows:
            entries.append(_told(entry, rows[place], table))
        else:
            defects.append(Defect(path=entry.image, problem="is not in the table, so its patient is not known"))
    return dataclasses.replace(listing, entries=tuple(entries), defects=tuple(defects))


def _names(entries: Sequence[Entry], root: Path) -> dict[str, set[int]]:
    """Maps the names by which a table may call an image to the positions of the images of that name."""
    found: dict[str, set[int]] = defaultdict(set)
    for place, entry in enumerate(entries):
        below = entry.image.relative_to(root).with_suffix("").as_posix()
        for name in (entry.id, below, entry.image.stem):
            found[normal(name)].add(place)
    return found


def _told(entry: Entry, row: Mapping[str, str], table: Table) -> Entry:
    """The entry with what its row says."""
    return dataclasses.replace(
        entry,
        label=row.get("label", entry.label),
        group=row.get("group", entry.group),
        part=part_of(row, table) or entry.part,
    )


def _bare(name: str) -> str:
    """Strips an image file's extension from a path."""
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else name


def part_of(row: Mapping[str, str], table: Table) -> Part | None:
    """The part of the split in a row's column ``split``; raises DataError for other words."""
    if "split" not in row:
        return None
    if row["split"].lower() not in PARTS:
        raise DataError(
            f"{table.path}: image {row['image']!r}: unknown split {row['split']!r}; write train, validation or test"
        )
    return PARTS[row["split"].lower()]
