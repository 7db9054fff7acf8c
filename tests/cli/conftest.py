"""A user's folder, and a shell in it."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.cli.shells import Shell
from tests.tiny import TINY


@pytest.fixture(scope="module")
def place(tiny_home, tmp_path_factory):
    """A user's folder with study files."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(tiny_home / "data", folder / ".kdsearch" / "data")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (folder / "tiny-never-run.yaml").write_text(TINY.replace("name: tiny", "name: never-run"), encoding="utf-8")
    return folder


@pytest.fixture
def shell(place, capsys, monkeypatch) -> Shell:
    """A shell in the user's folder."""
    monkeypatch.chdir(place)
    for name in os.environ:
        if name.startswith(("KDSEARCH_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    return Shell(capsys)
