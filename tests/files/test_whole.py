"""A file is written whole or not at all, whatever happens to its writer."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time

import pytest

from kdsearch.files.whole import PARTIAL, remove, whole_folder, write_whole


def test_disk_that_fills_up_leaves_the_last_content_and_nothing_half(tmp_path):
    place = tmp_path / "c"
    write_whole(str(place), b"before")
    program = (
        "import resource, signal, sys; from kdsearch.files.whole import write_whole\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a full disk, for this process alone\n"
        "try: write_whole(sys.argv[1], bytes(100_000))\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(place)], check=False).returncode == errno.EFBIG
    assert place.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [place]


def test_kill_in_the_middle_of_a_write_leaves_the_last_content_and_removal_takes_the_rest(tmp_path):
    place = tmp_path / "c"
    write_whole(str(place), b"before")
    program = (
        "import sys; from kdsearch.files.whole import write_whole\n"
        "print('up', flush=True)\n"
        "while True: write_whole(sys.argv[1], b'x' * 50_000_000)\n"
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
