"""Commands that only read and show answer without the libraries that take seconds to import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STORED = Path(__file__).parents[1] / "stored" / "unversioned"
PROGRAM = """
import sys
from kdsearch.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(",".join(sorted({"torch", "mlflow", "plotly"} & sys.modules.keys())), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["schema"], ["check", "study.yaml"], ["front", "study.yaml"], ["front", "study.yaml", "--json"]],
)
def test_neither_torch_nor_mlflow_nor_plotly_is_imported(arguments, tmp_path):
    shutil.copytree(STORED, tmp_path / "place")
    file = tmp_path / "place" / "study.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("convolutions:", "convs_per_stage:"), encoding="utf-8")
    environment = os.environ | {"KDSEARCH_HOME": "home", "STORED_IMAGES": "images"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(
        command, cwd=tmp_path / "place", env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "", done.stderr
    assert done.stdout
