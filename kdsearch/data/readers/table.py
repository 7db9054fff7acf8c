"""Reads the CSV tables that come with data sets."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from kdsearch.errors import DataError, nearest


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
