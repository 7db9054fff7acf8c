"""Finding a database URL's file, and explaining malformed addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.files.home import problem_of_address, sqlite_file


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///x.db", "x.db"),
        ("sqlite:///x.db?timeout=60", "x.db"),
        ("sqlite+pysqlite:///a/x.db", "a/x.db"),
        ("sqlite:///file:x.db?mode=rw&uri=true", "x.db"),
        ("sqlite:////whole/x.db", "/whole/x.db"),
    ],
)
def test_sqlite_file_is_found_despite_url_options(url, path):
    assert sqlite_file(url) == Path(path).absolute()


@pytest.mark.parametrize(
    "url", ["postgresql://host/x", "sqlite://", "sqlite:///:memory:", "no url", "postgresql://h:x/y"]
)
def test_other_urls_have_no_file(url):
    assert sqlite_file(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://host:99999", "port out of range 0-65535; write HOST:PORT"),
        ("http://host:abc", "port could not be cast to integer value as 'abc'; write HOST:PORT"),
        ("http://host:0", "the port must be from 1 to 65535"),
        ("http://[host", "invalid IPv6 URL; write HOST:PORT"),
        ("postgresql://me@host:5432/x", ""),
        ("sqlite:///x.db", ""),
    ],
)
def test_malformed_address_is_explained(url, problem):
    assert problem_of_address(url).startswith(problem)
    assert bool(problem_of_address(url)) == bool(problem)
