"""The picked folder's ``predict.py``, in a Python that has only what it says it needs."""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import kdsearch
from tests.shared import made_once
from tests.shipping import PLAIN, ship

NEEDED = ("onnxruntime", "numpy", "pillow")
LINES = 40


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with links to the three packages, what they require, and nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    wanted, seen = list(NEEDED), set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = importlib.metadata.distribution(name)
        wanted += [need.split()[0].rstrip(";") for need in found.requires or () if "extra ==" not in need]
        wanted = [need.partition(">")[0].partition("=")[0].partition("<")[0] for need in wanted]
        for file in found.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(found.locate_file(top)))
    return folder


def _run(packages, folder, *images):
    code = (
        "import runpy, sys; sys.path.append(sys.argv.pop(1)); sys.argv.pop(0); "
        "assert not any(name in sys.modules for name in ('torch', 'kdsearch')); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(packages), str(folder / "predict.py"), *map(str, images)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_packages_are_only_the_needed_ones(packages):
    for name in ("torch", "kdsearch", "pydantic"):
        code = f"import sys; sys.path.append({str(packages)!r}); import {name}"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
        assert f"No module named {name!r}" in done.stderr


@pytest.mark.parametrize("preprocessing", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_masks_are_those_of_kdsearch(bench, weights, packages, tmp_path_factory, tmp_path, preprocessing, mode):
    form = dataclasses.replace(PLAIN, preprocessing=preprocessing)
    folder = made_once(
        tmp_path_factory, f"alone-{preprocessing}", lambda place: ship(bench, weights, place / "s", form=form)
    )
    values = np.random.default_rng(0).integers(0, 256, (9, 13, 4)).astype(np.uint8)
    image = Image.fromarray(values).resize((130, 90), Image.Resampling.BICUBIC).convert(mode)
    image.save(tmp_path / "scan.v2.png")
    done = _run(packages, folder / "s", tmp_path / "scan.v2.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "scan.v2_mask.png") as written:
        mask = np.asarray(written)
    wanted = kdsearch.load_student(folder / "s")(tmp_path / "scan.v2.png")
    assert set(np.unique(mask)) <= {0, 255}
    # the graph's own resizing rounds less often than Pillow's, and random weights enlarge the difference
    assert ((mask > 0) != wanted).mean() <= (0.01 if preprocessing else 0.0)


def test_deep_images_are_refused_with_what_to_do(shipped, packages, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    done = _run(packages, shipped, tmp_path / "deep.png")
    assert done.returncode == 1
    assert "deep.png: more than 8 bits; scale it to 0-255 as student.yaml says under input.whites" in done.stderr
    assert not (tmp_path / "deep_mask.png").exists()


def test_program_is_short(shipped):
    assert len((shipped / "predict.py").read_text(encoding="utf-8").splitlines()) <= LINES


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_models_say_what_they_are(shipped, name):
    session = onnxruntime.InferenceSession(str(shipped / name))
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["task"] == "segment"
    assert ast.literal_eval(facts["names"]) == {0: "background", 1: "foreground"}
    assert ast.literal_eval(facts["imgsz"]) == [32, 32]
    assert (facts["channels"], facts["fit"], facts["version"]) == ("1", "stretch", kdsearch.__version__)
    assert {"mean", "std", "license", "date", "description"} <= set(facts)
