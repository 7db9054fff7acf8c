"""What the command line does before any command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kdsearch.cli.main import USER_ERROR, main
from kdsearch.environment import SETTINGS
from tests.tiny import TINY


def test_windows_is_refused_in_a_sentence(capsys):
    assert main(["doctor"], platform="win32") == USER_ERROR
    assert (
        "kdsearch doctor: Windows is not supported; run kdsearch in WSL, on Linux or on macOS"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("name", "usual"), SETTINGS)
def test_environment_is_set_before_torch_is_loaded_unless_the_user_says_otherwise(name, usual):
    code = (
        "import os, sys; from kdsearch.cli.main import main; before = 'torch' in sys.modules\n"
        f"main(['schema']); print(before, os.environ['{name}'], file=sys.stderr)"
    )
    for given, kept in ({}, usual), ({name: "7"}, "7"):
        environment = {key: value for key, value in os.environ.items() if key != name} | given
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr.split()[-2:] == ["False", kept]


def test_what_the_operating_system_refuses_is_one_line_with_the_path(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (tmp_path / "home").write_text("a file where a folder should be")
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    assert main(["data", "tiny.yaml"]) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kdsearch data: ")
    assert "home" in line
