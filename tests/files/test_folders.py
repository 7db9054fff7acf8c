"""A folder takes its place whole, or not at all."""

from __future__ import annotations

import pytest

from kdsearch.files.whole import whole_folder


def _write(folder, name, *, replace=False, broken_off=False):
    with whole_folder(folder, replace=replace) as beside:
        (beside / name).write_text("x")
        if broken_off:
            raise KeyError("broken off")


def test_folder_that_is_broken_off_leaves_nothing(tmp_path):
    with pytest.raises(KeyError, match="broken off"):
        _write(tmp_path / "a", "half", broken_off=True)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_exists_is_replaced_only_where_that_is_wanted(tmp_path):
    _write(tmp_path / "a", "before", replace=True)
    _write(tmp_path / "a", "after", replace=True)
    with pytest.raises(OSError, match="not empty"):
        _write(tmp_path / "a", "third")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["after"]
