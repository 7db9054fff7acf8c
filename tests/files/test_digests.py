"""Digests of files are remembered while the files stay as they are."""

from __future__ import annotations

import json

from kdsearch.files.digests import FileDigests


def test_files_are_read_again_only_where_they_changed(tmp_path):
    digests = FileDigests(tmp_path / "digests.json")
    path, other = tmp_path / "0.png", tmp_path / "1.png"
    path.write_bytes(b"0")
    other.write_bytes(b"1")
    first = digests.of(path)
    digests.keep()
    assert FileDigests(tmp_path / "digests.json").of(path) == first
    remembered = json.loads((tmp_path / "digests.json").read_text())
    remembered[str(path)][1] = "remembered"
    (tmp_path / "digests.json").write_text(json.dumps(remembered))
    assert FileDigests(tmp_path / "digests.json").of(path) == "remembered"
    path.write_bytes(path.read_bytes() + b"x")
    assert FileDigests(tmp_path / "digests.json").of(path) not in (first, "remembered")
    (tmp_path / "digests.json").write_text("[]")
    assert FileDigests(tmp_path / "digests.json").of(other) != "unreadable"
    assert digests.of(tmp_path / "absent.png") == "unreadable"
