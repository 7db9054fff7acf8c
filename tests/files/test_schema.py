"""Stored content carries a schema number and is upgraded step by step."""

from __future__ import annotations

import pytest

from kdsearch.errors import KdsearchError
from kdsearch.files.schema import Schema

THING = Schema(
    what="thing", upgrades=(lambda old: {**old, "first": 1}, lambda old: {**old, "second": old["first"] + 1})
)


@pytest.mark.parametrize("written", [{}, {"schema": 1, "first": 1}, {"schema": 2, "first": 1, "second": 2}])
def test_content_of_any_schema_is_upgraded(written):
    assert THING.upgraded(written) == {"first": 1, "second": 2}


def test_current_content_needs_no_upgrade():
    assert THING.upgraded(THING.stamped({"a": 0})) == {"a": 0}


def test_content_of_a_newer_release_is_refused():
    with pytest.raises(KdsearchError, match=r"thing: written by a newer release .* \(schema 3, this one reads up to 2"):
        THING.upgraded({"schema": 3})
