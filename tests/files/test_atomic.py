"""A file is written completely or not at all, whatever happens to its writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from kdsearch.files.atomic import PARTIAL, atomic_folder, atomic_write, remove, remove_leftovers


def test_full_disk_keeps_the_previous_content_and_leaves_no_partial_file(tmp_path):
    place = tmp_path / "c"
    atomic_write(str(place), b"before")
    program = (
        "import resource, signal, sys; from kdsearch.files.atomic import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a full disk, for this process alone\n"
        "try: atomic_write(sys.argv[1], bytes(100_000))\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(place)], check=False).returncode == errno.EFBIG
    assert place.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [place]


def test_killed_write_leaves_whole_content_and_removal_deletes_partial_files(tmp_path):
    place = tmp_path / "c"
    atomic_write(str(place), b"before")
    program = (
        "import sys; from kdsearch.files.atomic import atomic_write\n"
        "print('up', flush=True)\n"
        "while True: atomic_write(sys.argv[1], b'x' * 50_000_000)\n"
    )
    for attempt in range(5):
        with subprocess.Popen([sys.executable, "-c", program, str(place)], stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(0.01 + 0.02 * attempt)
            writer.send_signal(signal.SIGKILL)
        content = place.read_bytes()
        assert content in {b"before", b"x" * 50_000_000}
    place.with_name(f"c.12345678.{PARTIAL}").write_bytes(b"half")
    remove(str(place))
    assert list(tmp_path.iterdir()) == []


def _write(folder, name, *, replace=False, broken_off=False):
    with atomic_folder(folder, replace=replace) as beside:
        (beside / name).write_text("x")
        if broken_off:
            raise KeyError("broken off")


def test_interrupted_folder_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyError, match="broken off"):
        _write(tmp_path / "a", "half", broken_off=True)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_replaced_only_on_request(tmp_path):
    _write(tmp_path / "a", "before", replace=True)
    _write(tmp_path / "a", "after", replace=True)
    with pytest.raises(OSError, match="not empty"):
        _write(tmp_path / "a", "third")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["after"]


def _age(path, days):
    then = time.time() - days * 86400
    os.utime(path, (then, then))
    return path


def test_leftovers_are_removed_after_a_day_unless_in_use(tmp_path):
    for name in ("old", "new", "grows"):
        (tmp_path / f".partial-{name}").mkdir()
        (tmp_path / f".partial-{name}" / "images.npy").write_bytes(b"x")
    _age(tmp_path / ".partial-old" / "images.npy", 2)
    _age(tmp_path / ".partial-old", 2)
    _age(tmp_path / ".partial-grows", 2)
    for name in ("w.safetensors.12345678.partial", ".abc.lock", ".held.lock", "mine.partial", "w.safetensors"):
        (tmp_path / name).touch()
        _age(tmp_path / name, 2)
    (tmp_path / "n.safetensors.12345678.partial").touch()
    with FileLock(tmp_path / ".held.lock"):
        _age(tmp_path / ".held.lock", 2)
        remove_leftovers(tmp_path, now=time.time())
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        *(".partial-new", ".partial-grows", ".held.lock", "mine.partial", "w.safetensors"),
        "n.safetensors.12345678.partial",
    }


def test_missing_folder_has_no_leftovers(tmp_path):
    remove_leftovers(tmp_path / "absent", now=time.time())
    assert list(tmp_path.iterdir()) == [], "the missing folder must not be created"


def test_folder_gets_default_permissions_without_changing_the_umask(tmp_path, monkeypatch):
    def refuse(_):
        raise AssertionError("another thread would write files with these rights")

    before = os.umask(0o027)
    monkeypatch.setattr(os, "umask", refuse)
    try:
        _write(tmp_path / "a", "x")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750


def test_folder_is_synced_to_disk_before_it_is_renamed(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, Path.replace

    def noted(number):
        done.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)  # noqa: PTH115 - of an open file
        sync(number)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("renamed"), replace(self, target))[1])
    _write(tmp_path / "a", "x")
    assert done[0] == "x"
    assert done[1].startswith(".partial-")
    assert done[2:] == ["renamed", tmp_path.name]
