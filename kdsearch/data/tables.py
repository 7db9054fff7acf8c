"""The CSV tables that come with data sets, and what a user should know of their columns."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsearch.data.pixels import SUFFIXES
from kdsearch.errors import DataError, nearest

KNOWN = ("image", "group", "label")
"""Columns of the table of a plain folder."""
GROUPS = (
    *("patient", "subject", "case", "group", "participant", "person", "individual", "animal", "donor"),
    *("video", "sequence", "exam", "examination", "study", "series", "visit", "pid"),
)
"""Names of columns, without what numbers them, that hold what images belong to."""
_NUMBERED = re.compile(r"(id|ids|no|nr|num|number|name|code|key|index|uid)$")
NAMED = 5
"""Images that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that was read."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    """By the key column; empty cells are left out."""


def read_table(path: Path, *, key: str, columns: Sequence[str] = ()) -> Table:
    """The table; raises DataError for a missing file or column, an empty key, and a key that occurs twice."""
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
            raise DataError(f"{path}:{line}: has nothing in column {key!r}; fill it in, or remove the row")
        if cells[key] in table:
            raise DataError(f"{path}:{line}: {key} {cells[key]!r} occurs twice; remove one of the rows")
        table[cells[key]] = cells
    return Table(path=path, columns=tuple(names), rows=table)


def _like(column: str, names: Sequence[str]) -> str:
    """What to do about the column that seems to be meant."""
    meant = next((name for name in names if name.lower() == column.lower()), None)
    if meant is not None:
        return f"; rename {meant!r} to {column!r}"
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        return "; separate columns by commas"
    return nearest(column, names)


def unread_columns(table: Table, *, ignored: Collection[str]) -> tuple[str, ...]:
    """Columns of a plain folder's table that are not read.

    Raises DataError for one that seems to name what images belong to, such as a patient, unless it is ignored.
    """
    unread = tuple(name for name in table.columns if name and name not in (*KNOWN, *ignored))
    for name in unread:
        if names_a_group(name):
            raise DataError(
                f"{table.path}: column {name!r} is not read, but seems to say which images belong together; rename it "
                f"to 'group', so that they stay in one part of every split, or write ignore_columns: [{name}] for this "
                "source"
            )
    return unread


def names_a_group(column: str) -> bool:
    """Whether a column of that name probably holds patients or the like."""
    plain = re.sub(r"[^a-z]", "", column.lower())
    return {plain, _NUMBERED.sub("", plain), plain.removesuffix("s"), plain.removeprefix("id")}.isdisjoint(
        GROUPS
    ) is False


def require_one_row_each(table: Table) -> None:
    """Raises DataError for two rows of one image, such as ``a.png`` and ``a.jpg``, that say different things."""
    first: dict[str, tuple[str, dict[str, str]]] = {}
    for key, row in table.rows.items():
        said = {name: row.get(name, "") for name in KNOWN if name != "image"}
        other, before = first.setdefault(plain_name(key), (key, said))
        if before != said:
            raise DataError(
                f"{table.path}: the rows {other!r} and {key!r} are of one image and differ in group or label; remove "
                "one of them"
            )


def plain_name(name: str) -> str:
    """The name of an image in a table, without folder and the ending of an image file, in Unicode's composed form."""
    last = normal(name.rpartition("/")[2])
    path = Path(last)
    return path.stem if path.suffix.lower() in SUFFIXES else last


def normal(name: str) -> str:
    """Equal for names that look the same, however macOS or Linux spell their accents."""
    return unicodedata.normalize("NFC", name)


def rows_by_stem(table: Table, stems: Collection[str]) -> dict[str, dict[str, str]]:
    """Rows by the stems of the images they are of, in composed form.

    A name is first taken whole, so that a dot in it does not end it; then without what follows its last dot.
    """
    known = {normal(stem) for stem in stems}
    found: dict[str, dict[str, str]] = {}
    for key, row in table.rows.items():
        name = plain_name(key)
        found[name if name in known else normal(Path(key).stem)] = row
    return found
