"""What the command line does before any command."""

from __future__ import annotations

import os
import subprocess
import sys

from kdsearch.cli.main import USER_ERROR, main


def test_windows_is_refused_in_a_sentence(capsys):
    assert main(["doctor"], platform="win32") == USER_ERROR
    assert (
        "kdsearch doctor: Windows is not supported; run kdsearch in WSL, on Linux or on macOS"
        in capsys.readouterr().err
    )


def test_threads_spin_shortly_before_torch_is_loaded_unless_the_user_says_otherwise():
    code = (
        "import os, sys; from kdsearch.cli.main import main; before = 'torch' in sys.modules\n"
        "main(['schema']); print(before, os.environ['GOMP_SPINCOUNT'], file=sys.stderr)"
    )
    for given, kept in ({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"):
        environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr.split()[-2:] == ["False", kept]
