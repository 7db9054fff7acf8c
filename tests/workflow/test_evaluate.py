"""A student's scores on other people's files."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from kdsearch.config.data import DataConfig, FolderSource
from kdsearch.data.cache import load_dataset
from kdsearch.data.phantom.simulate import simulate
from kdsearch.data.splits import splits_of
from kdsearch.export.description import seal_of
from kdsearch.export.loading import load_student
from kdsearch.export.seen import read_seen
from kdsearch.workflow.evaluate import data_of, evaluate, read_evaluated
from kdsearch.workflow.predict import ImageToMark, predict
from tests.shipping import Bench, ship

pytestmark = pytest.mark.xdist_group("shipping")


def _palette(shares):
    return Image.fromarray((shares * 255).astype(np.uint8)).convert("RGB").quantize(64)


def _rgba(shares):
    grey = (shares * 255).astype(np.uint8)
    return Image.fromarray(np.dstack([grey, grey, grey, np.where(shares > 0.2, 255, 90).astype(np.uint8)]))


KINDS = {
    "8 bits": (".png", lambda shares: Image.fromarray((shares * 255).astype(np.uint8))),
    "12 bits in 16": (".png", lambda shares: Image.fromarray((shares * 4095).astype(np.uint16))),
    "16 bits": (".tif", lambda shares: Image.fromarray((shares * 65535).astype(np.uint16))),
    "32 bits": (".tif", lambda shares: Image.fromarray((shares * 1_000_000).astype(np.int32))),
    "fractions": (".tiff", lambda shares: Image.fromarray(shares.astype(np.float32))),
    "whole numbers as float": (".tiff", lambda shares: Image.fromarray((shares * 4000).round().astype(np.float32))),
    "palette": (".png", _palette),
    "transparent": (".png", _rgba),
    "JPEG": (".jpg", lambda shares: Image.fromarray((shares * 255).astype(np.uint8))),
}
DEEP = ("12 bits in 16", "16 bits", "32 bits", "whole numbers as float")
SIZES = ((32, 32), (57, 91), (200, 130))


@pytest.mark.parametrize(
    ("kind", "whites"),
    [
        *((kind, ()) for kind in KINDS),
        *((kind, (4095.0,)) for kind in KINDS if kind != "fractions"),
        *((kind, (1023.0, 65535.0)) for kind in DEEP),
        ("fractions", (1.0,)),
    ],
    ids=str,
)
def test_evaluate_scores_the_masks_that_predict_writes(shipped, tmp_path, kind, whites):
    student = load_student(_with_whites(shipped, tmp_path / "student", whites))
    _write(tmp_path / "set", kind)
    data = data_of(f"folder={tmp_path / 'set'}", "stop", student)
    known = read_seen(shipped, student.description)
    dataset = read_evaluated(student, data, tmp_path / "home", known=known, unseen=False, warn=str)
    evaluated = dict(
        zip([info.id for info in dataset.infos], evaluate(student, dataset, data).native.dice, strict=True)
    )
    expected = {f"folder/{name}": dice for name, dice in _predicted_dice(student, tmp_path / "set").items()}
    assert evaluated == pytest.approx(expected)
    assert max(expected.values()) > 0


def test_pick_scores_the_masks_that_predict_writes_if_sources_have_several_depths(bench, weights, tmp_path):
    for name, kind in (("shallow", "12 bits in 16"), ("deep", "16 bits")):
        _write(tmp_path / name, kind)
    config = DataConfig(
        sources=(
            FolderSource(reader="folder", name="shallow", folder=str(tmp_path / "shallow"), bits=14),
            FolderSource(reader="folder", name="deep", folder=str(tmp_path / "deep")),
        ),
        size=32,
    )
    dataset = load_dataset(config, tmp_path / "home")
    positions = range(len(dataset.infos))
    splits = splits_of(dataset, train=positions, validation=positions, test=())
    study = bench.study.model_copy(update={"data": config})
    materials = dataclasses.replace(bench.materials, dataset=dataset, splits=splits)
    picked = ship(Bench(study, materials), weights, tmp_path / "picked")
    student = load_student(tmp_path / "picked", runtime="torch")
    dice = [value for name in ("shallow", "deep") for value in _predicted_dice(student, tmp_path / name).values()]
    assert picked.native.dice == pytest.approx(np.mean(dice))


def _predicted_dice(student, folder):
    """Of the masks that predict writes of the folder's images, by their names."""
    found = {}
    for path in sorted((folder / "images").iterdir()):
        place = folder / "out" / path.stem
        predict(student, ImageToMark(image=path, place=place), probabilities=False)
        with Image.open(place.with_name(f"{path.stem}_mask.png")) as file:
            predicted = np.asarray(file) > 0
        with Image.open(folder / "masks" / f"{path.stem}.png") as file:
            lesion = np.asarray(file) > 0
        found[path.stem] = 2 * (predicted & lesion).sum() / (predicted.sum() + lesion.sum())
    return found


def _write(folder, kind):
    """Phantoms of several sizes as that kind of file, every other one too dark to use the kind's whole range."""
    suffix, encoded = KINDS[kind]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(6):
        phantom = simulate(index, seed=5)
        height, width = SIZES[index // 2]
        grey = np.asarray(Image.fromarray(phantom.image).resize((width, height))) / 255
        mask = np.asarray(Image.fromarray(phantom.mask).resize((width, height), Image.Resampling.NEAREST))
        encoded(grey * (0.2 if index % 2 else 1.0)).save(folder / "images" / f"{index}{suffix}")
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")


def _with_whites(shipped, folder, whites):
    """The same student as if it had been trained on images of that depth."""
    shutil.copytree(shipped, folder)
    path = folder / "student.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["input"]["whites"] = list(whites)
    content["seal"] = seal_of({key: value for key, value in content.items() if key != "seal"})
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder
