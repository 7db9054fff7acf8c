"""Writes the tables of settings into the pages of the study-file reference: ``python -m tests.settings_pages``."""

from __future__ import annotations

import re
from pathlib import Path

from kdsearch.config.reference import parts

PAGES = Path(__file__).parents[1] / "docs" / "reference" / "study-file"
GENERATED = re.compile(r"(<!-- settings: ([a-z_ ]+) -->\n).*?(<!-- end of settings -->)", re.DOTALL)


def with_settings(page: str) -> str:
    """The page with the tables between its markers, which name the sections, as the models have them today."""
    tables = parts()
    return GENERATED.sub(lambda found: f"{found[1]}{_joined(found[2], tables)}\n{found[3]}", page)


def sections_of(page: str) -> list[str]:
    """The sections that the page's markers name."""
    return [name for found in GENERATED.finditer(page) for name in found[2].split()]


def _joined(names: str, tables: dict[str, str]) -> str:
    return "\n\n".join(tables[name] for name in names.split())


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        path.write_text(with_settings(path.read_text(encoding="utf-8")), encoding="utf-8")
