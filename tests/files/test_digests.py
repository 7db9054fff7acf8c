"""Digests of files are reused while the files are unchanged."""

from __future__ import annotations

import json

from kdsearch.files.digests import FileDigests


def test_only_changed_files_are_read_again(tmp_path):
    digests = FileDigests(tmp_path / "digests.json")
    path, other = tmp_path / "0.png", tmp_path / "1.png"
    path.write_bytes(b"0")
    other.write_bytes(b"1")
    first = digests.of(path)
    digests.keep()
    assert FileDigests(tmp_path / "digests.json").of(path) == first
    remembered = json.loads((tmp_path / "digests.json").read_text())
    remembered["files"][str(path)][1] = "remembered"
    (tmp_path / "digests.json").write_text(json.dumps(remembered))
    assert FileDigests(tmp_path / "digests.json").of(path) == "remembered"
    path.write_bytes(path.read_bytes() + b"x")
    assert FileDigests(tmp_path / "digests.json").of(path) not in (first, "remembered")
    (tmp_path / "digests.json").write_text("[]")
    assert FileDigests(tmp_path / "digests.json").of(other) != "unreadable"
    assert digests.of(tmp_path / "absent.png") == "unreadable"


def test_digests_without_a_schema_are_used_and_newer_ones_recomputed(tmp_path):
    store, path = tmp_path / "digests.json", tmp_path / "0.png"
    path.write_bytes(b"0")
    digests = FileDigests(store)
    own = digests.of(path)
    digests.keep()
    written = json.loads(store.read_text())
    state, _ = written["files"][str(path)]
    store.write_text(json.dumps({str(path): [state, "remembered"]}))
    assert FileDigests(store).of(path) == "remembered"
    store.write_text(json.dumps({"schema": 99, "files": {str(path): [state, "of another form"]}}))
    assert FileDigests(store).of(path) == own
