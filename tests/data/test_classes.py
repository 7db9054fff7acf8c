"""Masks of several classes: numbers, palettes, colors, one file per class, and pixels that do not count."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.config.load import load_study
from kdsearch.config.task import IGNORED
from kdsearch.data.cache import load_dataset
from kdsearch.data.frame import Frame, merged
from kdsearch.data.native import native_images
from kdsearch.errors import DataError, StudyFileError
from tests.data.pictures import write_image

WANTED = np.zeros((40, 50), dtype=np.uint8)
WANTED[5:20, 5:25], WANTED[15:30, 20:45], WANTED[36:, :] = 1, 2, IGNORED
COLORS = {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 90, 255), IGNORED: (255, 255, 255)}


def _write(folder, masks):
    """Three images, with masks by the names of their files."""
    for index in range(3):
        write_image(folder / "images" / f"{index}.png", seed=index)
        for name, mask in masks.items():
            path = folder / name.format(index)
            path.parent.mkdir(parents=True, exist_ok=True)
            mask.save(path)


def _config(folder, source=None, **data):
    sources = [{"reader": "folder", "folder": str(folder), **(source or {})}]
    return DataConfig.model_validate_json(json.dumps({"sources": sources, "size": [40, 48], **data}))


def _numbers(values):
    return Image.fromarray(np.select([number == WANTED for number in values], list(values.values())).astype(np.uint8))


def _in_colors():
    return Image.fromarray(np.array([COLORS.get(number, (0, 0, 0)) for number in range(256)], np.uint8)[WANTED])


def _palette():
    image = _numbers({0: 0, 1: 1, 2: 2, IGNORED: 255})
    image.putpalette([9, 9, 9] * 256)
    return image


KINDS = {
    "numbers": ({"masks/{}.png": _numbers({0: 0, 1: 1, 2: 2, IGNORED: 255})}, {}, {"ignore": 255}),
    "palette image": ({"masks/{}.png": _palette()}, {}, {"ignore": 255}),
    "numbers by name": (
        {"masks/{}.png": _numbers({0: 7, 1: 3, 2: 200, IGNORED: 11})},
        {},
        {"classes": {"background": 7, "lesion": [3, 4], "cyst": 200}, "ignore": 11},
    ),
    "others are ignored": (
        {"masks/{}.png": _numbers({0: 0, 1: 1, 2: 2, IGNORED: 9})},
        {},
        {"other_values": "ignore"},
    ),
    "colors": (
        {"masks/{}.png": _in_colors()},
        {},
        {"classes": None, "palette": {"lesion": [255, 0, 0], "cyst": [[0, 90, 255]]}, "other_values": "ignore"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mask_of_each_kind_becomes_class_numbers(tmp_path, kind):
    masks, source, data = KINDS[kind]
    _write(tmp_path / "data", masks)
    config = _config(tmp_path / "data", source, **{"classes": ["background", "lesion", "cyst"], **data})
    dataset = load_dataset(config, tmp_path / "home")
    assert dataset.classes == config.foreground == ("lesion", "cyst")
    assert dataset.ignores
    assert dataset.has_foreground.all()
    np.testing.assert_array_equal(dataset.masks[0], Frame(height=40, width=48).mask(WANTED))
    (image,) = native_images(config, {"folder/1"})
    np.testing.assert_array_equal(image.mask, WANTED)
    opened = load_dataset(config, tmp_path / "home")
    assert opened.fingerprint == dataset.fingerprint
    assert (opened.classes, opened.ignores) == (dataset.classes, True)


def test_each_class_may_have_masks_of_its_own(tmp_path):
    lesion, cyst = (Image.fromarray((number == WANTED).astype(np.uint8) * 255) for number in (1, 2))
    _write(tmp_path / "data", {"truth/lesion/{}.png": lesion, "truth/cyst/{}.png": cyst})
    source = {"images": "images/{name}.png", "masks": "truth/{class}/{name}.png"}
    config = _config(tmp_path / "data", source, classes=["background", "lesion", "cyst"])
    (image,) = native_images(config, {"folder/1"})
    np.testing.assert_array_equal(image.mask, np.where(WANTED == IGNORED, 0, WANTED))
    with pytest.raises(DataError, match="has the class 'cyst', which data.classes does not have; add it"):
        load_dataset(config.model_copy(update={"classes": {"background": (0,), "lesion": (1,)}}), tmp_path / "home")


def test_two_values_stay_two_values_next_to_ignored_pixels(tmp_path):
    _write(tmp_path / "data", {"masks/{}.png": _numbers({0: 0, 1: 255, 2: 255, IGNORED: 128})})
    dataset = load_dataset(_config(tmp_path / "data", ignore=128), tmp_path / "home")
    assert (dataset.classes, dataset.ignores) == ((), True)
    assert set(np.unique(dataset.masks)) == {0, 1, IGNORED}


def test_threshold_leaves_ignored_pixels_ignored(tmp_path):
    _write(tmp_path / "data", {"masks/{}.png": _numbers({0: 20, 1: 180, 2: 240, IGNORED: 255})})
    dataset = load_dataset(_config(tmp_path / "data", {"threshold": 128}, ignore=255), tmp_path / "home")
    np.testing.assert_array_equal(dataset.masks[0] == IGNORED, Frame(height=40, width=48).mask(WANTED) == IGNORED)


@pytest.mark.parametrize(
    ("mask", "data", "message"),
    [
        (_numbers({0: 0, 1: 1, 2: 5, IGNORED: 0}), {}, r"mask has 375 pixels of number 5, .* set ignore: 5 if such"),
        (_in_colors(), {}, "mask is colored, but data.classes needs numbers"),
        (
            _in_colors(),
            {"classes": None, "palette": {"lesion": [255, 0, 0]}},
            r"mask has 375 pixels of color \[0, 90, 255\], which data.palette does not name; add it",
        ),
    ],
)
def test_value_that_no_class_explains_is_named_with_its_pixels(tmp_path, mask, data, message):
    _write(tmp_path / "data", {"masks/{}.png": mask})
    config = _config(tmp_path / "data", **{"classes": ["background", "lesion", "cyst"], **data})
    with pytest.raises(DataError, match=message):
        load_dataset(config, tmp_path / "home")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{palette: {a: [1, 2, 3]}, classes: [background, a]}", "classes is for numbers and palette for colors"),
        ("{palette: {a: [1, 2, 3], b: [[1, 2, 3]]}}", "a color belongs to one class"),
        ("{palette: {a: [1, 2, 256]}}", r"palette.a\[0\]: must be less than or equal to 255; got 256"),
        ("{classes: [background, a], ignore: 1}", "ignore: 1: a class has this number"),
        ("{other_values: ignore}", "other_values has no effect without classes or palette"),
        ("{sources: [{reader: phantom, classes: 3}], classes: [background, a, b]}", "all sources must have the same"),
        (
            "{sources: [{reader: folder, folder: x, images: '{name}.png', masks: '{class}/{name}.png'}]}",
            "needs the names of the classes",
        ),
        (
            "{sources: [{reader: folder, folder: x, images: '{name}.png', masks: '{class}.png'}]}",
            "must contain {name} once, and {class} at most once",
        ),
        ("{size: [64, 8]}", r"must be a number of pixels from 16 to 1024, or height and width, .* got \[64, 8\]"),
        ("{size: [64, 72]}", "data.size: 72 is not divisible by 32"),
    ],
)
def test_classes_that_contradict_themselves_are_refused(study_file, data, message):
    with pytest.raises(StudyFileError, match=message):
        load_study(study_file(f"name: a\ndata: {data}\n"))


def test_pixel_gets_the_class_with_the_largest_share():
    mask = np.zeros((4, 8), dtype=np.uint8)
    mask[:, :3], mask[:, 3:5], mask[:, 5:] = 2, 1, 3
    np.testing.assert_array_equal(Frame(height=1, width=2).mask(mask), [[2, 3]])


def test_padding_keeps_the_aspect_ratio_and_is_ignored():
    frame = Frame(height=32, width=32, pads=True)
    image, mask = np.full((20, 40), 200, np.uint8), np.ones((20, 40), np.uint8)
    assert (frame.image(image)[8:24] == 200).all()
    assert not frame.image(image)[:8].any()
    assert (frame.mask(mask)[8:24] == 1).all()
    assert (frame.mask(mask)[24:] == IGNORED).all()
    logits = np.full((2, 32, 32), -1, np.float32)
    logits[0, 8:24] = 1
    found = frame.logits(logits, (20, 40))
    assert found.shape == (2, 20, 40)
    assert (found[0] == 1).all()


def test_vanishing_class_keeps_one_pixel():
    frame = Frame(height=8, width=8)
    mask = np.zeros((64, 64), np.uint8)
    mask[:32], mask[50, 50] = 1, 2
    small = frame.mask(mask)
    assert frame.lost(mask, small) == [2]
    assert frame.one_pixel(mask, 2) == (6, 6)


def test_later_classes_cover_earlier_ones_and_ignored_pixels_only_background():
    one, two, gap = (np.array([[*row]], np.uint8) for row in ([1, 1, 0, 0], [0, 2, 2, 0], [255, 255, 0, 255]))
    np.testing.assert_array_equal(merged([one, two, gap], (1, 4)), [[1, 2, 2, 255]])


def test_cache_of_a_release_with_two_values_is_read(tmp_path):
    """Releases before several classes stored 255 inside a lesion, and no names of classes."""
    _write(tmp_path / "data", {"masks/{}.png": _numbers({0: 0, 1: 255, 2: 255, IGNORED: 0})})
    config = _config(tmp_path / "data")
    made = load_dataset(config, tmp_path / "home")
    folder, masks = tmp_path / "home" / "data" / made.fingerprint, np.array(made.masks)
    np.save(folder / "masks.npy", masks * np.uint8(255))
    facts = json.loads((folder / "depth.json").read_text())
    (folder / "depth.json").write_text(json.dumps({"schema": 1, "whites": facts["whites"]}))
    np.testing.assert_array_equal(load_dataset(config, tmp_path / "home").masks, masks)
