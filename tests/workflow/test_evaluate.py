"""A student's scores on other people's files."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import ndimage

from kdsearch.config.data import DataConfig
from kdsearch.config.sources import FolderSource
from kdsearch.data.cache import load_dataset
from kdsearch.data.phantom import simulate
from kdsearch.data.splits import splits_of
from kdsearch.errors import ModelError
from kdsearch.export.description import seal_of
from kdsearch.export.loading import load_student
from kdsearch.export.seen import dump_seen, parse_seen, read_seen
from kdsearch.workflow.evaluate import data_of, evaluate, read_evaluated
from kdsearch.workflow.predict import ImageToMark, predict
from tests.shipping import Bench, ship


def _palette(shares):
    return Image.fromarray((shares * 255).astype(np.uint8)).convert("RGB").quantize(64)


def _rgba(shares):
    gray = (shares * 255).astype(np.uint8)
    return Image.fromarray(np.dstack([gray, gray, gray, np.where(shares > 0.2, 255, 90).astype(np.uint8)]))


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
    data = data_of(f"folder={tmp_path / 'set'}", student)
    known = read_seen(shipped, student.description)
    dataset = read_evaluated(student, data, tmp_path / "home", known=known, unseen=False, warn=str)
    evaluated = dict(
        zip([info.id for info in dataset.infos], evaluate(student, dataset, data).native.dice, strict=True)
    )
    expected = {f"folder/{name}": dice for name, dice in _predicted_dice(student, tmp_path / "set").items()}
    assert evaluated == pytest.approx(expected)
    assert max(expected.values()) > 0


def test_pick_scores_the_masks_that_predict_writes_for_several_bit_depths(bench, weights, tmp_path):
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


COPIES = {
    "JPEG": (".jpg", lambda image: image),
    "resized": (".png", lambda image: image.resize((150, 110))),
    "enlarged": (".jpg", lambda image: image.resize((500, 300), Image.Resampling.BICUBIC)),
    "brightened": (".png", lambda image: image.point(lambda value: min(255, value * 1.1))),
    "in color": (".bmp", lambda image: image.convert("RGB")),
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_of_known_images_are_recognized_and_left_out(shipped, tmp_path, way):
    """Of twelve images, six are training images, two validation, two locked test images and two new."""
    suffix, copied = COPIES[way]
    _save(tmp_path / "study", ".png", lambda image: image, named="a{}")
    _save(tmp_path / "copies", suffix, copied, named="b{}")
    seen = _seen_of(tmp_path / "study", tmp_path / "home")
    student, said = load_student(shipped), []
    data = data_of(f"folder={tmp_path / 'copies'}", student)
    dataset = read_evaluated(student, data, tmp_path / "home", known=seen, unseen=True, warn=said.append)
    assert said == [
        (
            "At least 2 of 12 images are locked test images of the study, which this uses up. Report the score once, "
            "and do not choose students by it."
        ),
        "At least 8 of 12 images were used to train or choose this student; they are left out.",
    ]
    assert [info.id for info in dataset.infos] == ["folder/b10", "folder/b11", "folder/b8", "folder/b9"]


def test_cropped_copies_are_recognized_by_their_names_or_reported(shipped, tmp_path):
    _save(tmp_path / "study", ".png", lambda image: image, named="a{}")
    _save(tmp_path / "little", ".png", lambda image: image.crop((4, 3, 196, 157)), named="a{}")
    _save(tmp_path / "much", ".png", lambda image: image.crop((40, 30, 160, 130)), named="a{}")
    seen = _seen_of(tmp_path / "study", tmp_path / "home")
    student = load_student(shipped)
    for name, expected in (("little", "At least 8 of 12 images were used to train"), ("much", "10 more images share")):
        said: list[str] = []
        data = data_of(f"folder={tmp_path / name}", student)
        read_evaluated(student, data, tmp_path / "home", known=seen, unseen=False, warn=said.append)
        assert any(sentence.startswith(expected) for sentence in said), said


def test_list_of_an_older_release_warns_about_unrecognized_copies(shipped, tmp_path):
    """Written by commit bb7f3ce: a digest of the pixels and the part."""
    _save(tmp_path / "set", ".png", lambda image: image, named="a{}")
    student, said = load_student(shipped), []
    data = data_of(f"folder={tmp_path / 'set'}", student)
    dataset = load_dataset(data, tmp_path / "home", whites=())
    digest = hashlib.sha256(np.ascontiguousarray(dataset.images[0]).tobytes()).hexdigest()[:16]
    known = parse_seen(f"{digest} learnt\n00000000deadbeef locked\n", what="seen.txt")
    left = read_evaluated(student, data, tmp_path / "home", known=known, unseen=True, warn=said.append)
    assert len(left.infos) == 11
    assert said == [
        "At least 1 of 12 images were used to train or choose this student; they are left out.",
        (
            "This student was picked by an older release, so resized or recompressed copies of its images cannot be "
            "recognized; run kdsearch pick again to fix that."
        ),
    ]


def test_list_of_images_of_a_newer_release_or_of_something_else_is_refused():
    with pytest.raises(ModelError, match=r"seen\.txt: written by a newer release"):
        parse_seen("schema 3\nwhatever\n", what="seen.txt")
    for text in ("schema 1\n00000000deadbeef learnt\n", "00000000deadbeef seen\n", "x\n"):
        with pytest.raises(ModelError, match=r"seen\.txt: not a list of images"):
            parse_seen(text, what="seen.txt")


def _save(folder, suffix, changed, *, named):
    """Writes twelve changed images with matching masks."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(12):
        noise = ndimage.gaussian_filter(np.random.default_rng(index).standard_normal((160, 200)), 7)
        image = changed(Image.fromarray(((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)))
        image.save(folder / "images" / f"{named.format(index)}{suffix}")
        mask = np.zeros(image.size[::-1], np.uint8)
        mask[10:60, 20:70] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{named.format(index)}.png")


def _seen_of(folder, home):
    """The list of seen images of a student that was trained and chosen with the first ten."""
    config = DataConfig(sources=(FolderSource(reader="folder", folder=str(folder)),), size=32)
    dataset = load_dataset(config, home)
    place = {info.id.rpartition("/a")[2]: position for position, info in enumerate(dataset.infos)}
    train, validation, test = ([place[str(index)] for index in part] for part in ((0, 1, 2, 3, 4, 5), (6, 7), (8, 9)))
    splits = splits_of(dataset, train=train, validation=validation, test=test)
    return parse_seen(dump_seen(dataset, splits), what="seen.txt")


def _predicted_dice(student, folder):
    """Dice of the masks that predict writes for the folder's images, by name."""
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
        gray = np.asarray(Image.fromarray(phantom.image).resize((width, height))) / 255
        mask = np.asarray(Image.fromarray(phantom.mask).resize((width, height), Image.Resampling.NEAREST))
        encoded(gray * (0.2 if index % 2 else 1.0)).save(folder / "images" / f"{index}{suffix}")
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
