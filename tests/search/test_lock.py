"""A second driver is refused, and a dead one's lock is gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kdsearch.errors import SearchError
from kdsearch.search.lock import only_driver


def test_second_driver_is_refused_by_the_first_s_name(tmp_path):
    message = f"run already, by process {os.getpid()} on "
    with only_driver(tmp_path), pytest.raises(SearchError, match=message), only_driver(tmp_path):
        pass
    with only_driver(tmp_path):
        pass


def test_lock_goes_with_its_process(tmp_path):
    code = f"""
import os, pathlib
from kdsearch.search.lock import only_driver
with only_driver(pathlib.Path({str(tmp_path)!r})):
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with only_driver(tmp_path):
        assert "process" in (tmp_path / "driver.txt").read_text()
