"""Which kdsearch it is, also on a machine that lacks git."""

from __future__ import annotations

import re

from kdsearch.version import commit_of_checkout


def test_commit_is_empty_where_there_is_no_git(monkeypatch):
    assert re.fullmatch("[0-9a-f]{40}|", commit_of_checkout())
    monkeypatch.setenv("PATH", "/nonexistent")
    assert commit_of_checkout() == ""
