"""Reads the CSV tables of data sets and checks their columns."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsearch.data.pixels import SUFFIXES
from kdsearch.errors import DataError, nearest

KNOWN = ("image", "mask", "group", "label", "split")
"""Columns that are read in the table of a plain folder."""
GROUPS = (
    *("patient", "subject", "case", "group", "participant", "person", "individual", "animal", "donor"),
    *("video", "sequence", "exam", "examination", "study", "series", "visit", "pid"),
)
"""Names of columns, without suffixes such as ``id``, that hold groups."""
_NUMBERED = re.compile(r"(id|ids|no|nr|num|number|name|code|key|index|uid)$")
NAMED = 5
"""An error lists at most this many images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The content of a CSV file."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    """Rows by their value in the key column, without empty cells."""


def read_table(path: Path, *, key: str, columns: Sequence[str] = ()) -> Table:
    """Reads a table; raises DataError for a missing file or column, an empty key or a duplicate key."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise DataError(f"{path}: no such table") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error.reason}); save the table as CSV in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}; save the table as CSV in UTF-8") from error
    for column in (key, *columns):
        if column not in names:
            raise DataError(
                f"{path}: has no column {column!r}; its columns are {', '.join(names)}{_like(column, names)}"
            )
    table: dict[str, dict[str, str]] = {}
    for line, row in rows:
        cells = {name: value.strip() for name, value in row.items() if name and value and value.strip()}
        if not cells:
            continue  # spreadsheets write empty rows
        if key not in cells:
            raise DataError(f"{path}:{line}: column {key!r} is empty; fill it in or remove the row")
        if cells[key] in table:
            raise DataError(f"{path}:{line}: duplicate {key} {cells[key]!r}; remove one of the rows")
        table[cells[key]] = cells
    return Table(path=path, columns=tuple(names), rows=table)


def _like(column: str, names: Sequence[str]) -> str:
    """Suggests a fix if another column was probably meant."""
    meant = next((name for name in names if name.lower() == column.lower()), None)
    if meant is not None:
        return f"; rename {meant!r} to {column!r}"
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        return "; separate the columns with commas"
    return nearest(column, names)


def unread_columns(table: Table, *, ignored: Collection[str]) -> tuple[str, ...]:
    """Lists the columns of a plain folder's table that are not read.

    Raises DataError if such a column seems to hold groups, such as patients, and is not ignored.
    """
    unread = tuple(name for name in table.columns if name and name not in (*KNOWN, *ignored))
    for name in unread:
        if names_a_group(name):
            raise DataError(
                f"{table.path}: column {name!r} is not read, but seems to say which images belong together; rename it "
                f"to 'group' to keep them in one part of every split, or set ignore_columns: [{name}] for this source"
            )
    return unread


def names_a_group(column: str) -> bool:
    """Returns whether a column of this name probably holds patients or other groups."""
    plain = re.sub(r"[^a-z]", "", column.lower())
    return {plain, _NUMBERED.sub("", plain), plain.removesuffix("s"), plain.removeprefix("id")}.isdisjoint(
        GROUPS
    ) is False


def require_one_row_each(table: Table) -> None:
    """Raises DataError if two rows for one image, such as ``a.png`` and ``a.jpg``, contradict each other."""
    first: dict[str, tuple[str, dict[str, str]]] = {}
    for key, row in table.rows.items():
        said = {name: row.get(name, "") for name in KNOWN if name != "image"}
        other, before = first.setdefault(plain_name(key), (key, said))
        if before != said:
            raise DataError(
                f"{table.path}: rows {other!r} and {key!r} describe the same image but differ in group or label; "
                "remove one of them"
            )


def plain_name(name: str) -> str:
    """Strips the folder and an image file's extension from a name; returns it in NFC."""
    last = normal(name.rpartition("/")[2])
    path = Path(last)
    return path.stem if path.suffix.lower() in SUFFIXES else last


def normal(name: str) -> str:
    """Normalizes a name to NFC, because macOS and Linux encode accents differently."""
    return unicodedata.normalize("NFC", name)


def rows_by_stem(table: Table, stems: Collection[str]) -> dict[str, dict[str, str]]:
    """Maps each image's stem, in NFC, to its row.

    A name that equals a stem is used whole, even if it contains a dot. Otherwise its extension is removed.
    """
    known = {normal(stem) for stem in stems}
    found: dict[str, dict[str, str]] = {}
    for key, row in table.rows.items():
        name = plain_name(key)
        found[name if name in known else normal(Path(key).stem)] = row
    return found
