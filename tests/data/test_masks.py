"""Mask files of every mode, and what is background in a source's masks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import ClassNumbers, DataConfig
from kdsearch.config.load import load_study
from kdsearch.config.sources import FolderSource
from kdsearch.data.audit import look
from kdsearch.data.cache import load_dataset
from kdsearch.data.masks import SourceMasks, summed_up_again
from kdsearch.data.native import native_images
from kdsearch.errors import DataError, StudyFileError
from tests.data.pictures import write_image

BOX = np.zeros((40, 50), dtype=np.uint8)
BOX[10:30, 10:30] = 1


SHAPE = np.zeros((48, 64), dtype=np.uint8)
SHAPE[8:20, 10:30] = 255


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("high", [1, 255])
def test_mask_is_the_higher_of_two_values(tmp_path, mode, high):
    if mode == "1" or high == 255:
        Image.fromarray(SHAPE).convert(mode).save(tmp_path / "mask.png")
    else:
        Image.fromarray(SHAPE // 255).convert(mode).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(SourceMasks().read(tmp_path / "mask.png", shape=(48, 64)), SHAPE // 255)


def test_mask_of_one_value_is_empty_or_full(tmp_path):
    for value in (0, 255):
        Image.fromarray(np.full((4, 4), value, dtype=np.uint8)).save(tmp_path / "mask.png")
        assert (SourceMasks().read(tmp_path / "mask.png", shape=(4, 4)) == value // 255).all()


@pytest.mark.parametrize("shape", [(12, 10), (48, 60)])
def test_mask_of_another_aspect_ratio_is_refused(tmp_path, shape):
    Image.fromarray(SHAPE).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=f"mask is 64×48 pixels, but its image is {shape[1]}×{shape[0]}"):
        SourceMasks().read(tmp_path / "mask.png", shape=shape)


@pytest.mark.parametrize("factor", [2, 4, 0.5])
def test_mask_of_another_resolution_is_resized_to_its_image(tmp_path, factor):
    height, width = SHAPE.shape
    large = Image.fromarray(SHAPE).resize((int(width * factor), int(height * factor)), Image.Resampling.NEAREST)
    large.save(tmp_path / "mask.png")
    masks = SourceMasks()
    np.testing.assert_array_equal(masks.read(tmp_path / "mask.png", shape=SHAPE.shape), SHAPE // 255)
    assert masks.resized == {tmp_path / "mask.png"}


def test_resized_masks_are_counted_and_read_alike_everywhere(folder, tmp_path):
    for index in range(3):
        Image.fromarray(BOX * 255).resize((100, 80), Image.Resampling.NEAREST).save(folder / "masks" / f"{index}.png")
    for index in range(3, 6):
        Image.fromarray(BOX * 255).save(folder / "masks" / f"{index}.png")
    config = _config(folder)
    for dataset in (load_dataset(config, tmp_path / "home"), load_dataset(config, tmp_path / "home")):
        (remark,) = dataset.remarks
        assert str(remark) == "3 images whose masks have another size and were resized to theirs"
        assert (dataset.masks == dataset.masks[5]).all()
    assert all((image.mask == BOX).all() for image in native_images(config, {i.id for i in dataset.infos}))


def test_blurred_masks_are_read_with_a_threshold(folder, tmp_path):
    blurred = Image.fromarray(BOX * 255).resize((200, 160), Image.Resampling.BICUBIC)
    for index in range(6):
        blurred.save(folder / "masks" / f"{index}.jpg", quality=60)
    (source,) = _config(folder).sources
    config = _config(folder).model_copy(update={"sources": (source.model_copy(update={"threshold": 128}),)})
    dataset = load_dataset(config, tmp_path / "home")
    (image, *_) = native_images(config, {info.id for info in dataset.infos})
    assert (image.mask > 0).mean() == pytest.approx(BOX.mean(), abs=0.005)
    lower = config.model_copy(update={"sources": (source.model_copy(update={"threshold": 20}),)})
    assert load_dataset(lower, tmp_path / "home").fingerprint != dataset.fingerprint


def test_mask_with_three_values_is_refused(tmp_path):
    Image.fromarray(SHAPE // 2 + np.eye(48, 64, dtype=np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="more than two gray values"):
        SourceMasks().read(tmp_path / "mask.png", shape=(48, 64))


@pytest.fixture
def folder(tmp_path):
    for index in range(6):
        write_image(tmp_path / "data" / "images" / f"{index}.png", seed=index)
    (tmp_path / "data" / "masks").mkdir()
    return tmp_path / "data"


def _write(folder, index, values):
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(folder / "masks" / f"{index}.png")


def _config(folder, **changes):
    return DataConfig(sources=(FolderSource(reader="folder", folder=str(folder)),), size=32, **changes)


def _one_and_two(folder):
    """Masks coded 1 and 2; the last two belong to negative images."""
    for index in range(6):
        _write(folder, index, 1 + (BOX if index < 4 else 0 * BOX))


def test_mask_of_background_only_is_empty_where_the_source_codes_background_as_one(folder, tmp_path):
    _one_and_two(folder)
    config = _config(folder)
    dataset = load_dataset(config, tmp_path / "home")
    assert dataset.has_foreground.tolist() == [True] * 4 + [False] * 2
    native = {image.id: bool(image.mask.any()) for image in native_images(config, {i.id for i in dataset.infos})}
    assert list(native.values()) == [True] * 4 + [False] * 2
    assert [one.area > 0 for one in look(config, dataset.infos)] == [True] * 4 + [False] * 2


def test_masks_of_zero_and_anything_mix(folder, tmp_path):
    for index, high in enumerate((1, 1, 255, 128, 255)):
        _write(folder, index, BOX * high)
    _write(folder, 5, 0 * BOX)
    dataset = load_dataset(_config(folder), tmp_path / "home")
    assert dataset.has_foreground.tolist() == [True] * 5 + [False]


def test_mask_that_is_all_lesion_stays_one(folder, tmp_path):
    for index in range(5):
        _write(folder, index, BOX * 255)
    _write(folder, 5, np.full_like(BOX, 255))
    assert load_dataset(_config(folder), tmp_path / "home").masks[5].all()


def test_value_that_is_lesion_here_and_background_there_is_refused(folder, tmp_path):
    for index in range(5):
        _write(folder, index, BOX)
    _write(folder, 5, 1 + BOX)
    with pytest.raises(DataError, match="source folder: gray value 1 is the lesion in .*png and background in .*5.png"):
        load_dataset(_config(folder), tmp_path / "home")


def test_value_that_no_other_mask_has_is_a_defect(folder, tmp_path):
    for index in range(5):
        _write(folder, index, BOX * 255)
    _write(folder, 5, np.full_like(BOX, 128))
    with pytest.raises(DataError, match=r"masks/5.png: every pixel is 128, .*; save .* 0 .* 255"):
        load_dataset(_config(folder), tmp_path / "home")


def test_two_colors_of_the_same_brightness_are_refused(folder, tmp_path):
    for index in range(6):
        mask = np.zeros((*BOX.shape, 3), dtype=np.uint8)
        mask[...] = (0, 130, 0)
        mask[BOX > 0] = (255, 0, 0)
        _write(folder, index, mask)
    with pytest.raises(DataError, match="two colors of the same brightness"):
        load_dataset(_config(folder), tmp_path / "home")


def test_masks_that_are_recoded_are_another_data_set_than_an_older_release_read(folder, tmp_path):
    """Trials of wrong masks and of right ones are not mixed."""
    for index in range(6):
        _write(folder, index, BOX)
    plain = load_dataset(_config(folder), tmp_path / "home").fingerprint
    assert (tmp_path / "home" / "data" / plain / "images.npy").is_file()
    _one_and_two(folder)
    recoded = load_dataset(_config(folder), tmp_path / "home").fingerprint
    assert load_dataset(_config(folder), tmp_path / "home").fingerprint == recoded
    assert (tmp_path / "home" / "data" / recoded / "images.npy").is_file()


def test_many_masks_of_many_values_are_summed_up_with_the_remedy(folder, tmp_path):
    for index in range(40):
        write_image(folder / "images" / f"{index}.png", seed=index)
        _write(folder, index, BOX * 3 + np.eye(40, 50, dtype=np.uint8) * 4)
    with pytest.raises(DataError) as caught:
        load_dataset(_config(folder), tmp_path / "home")
    text = str(caught.value)
    assert "40 files cannot be used:" in text
    assert "40 files, such as" in text
    assert "more than two gray values (0, 3, 4, 7)" in text
    assert "class numbers" in text
    assert len(text.splitlines()) < 20


def test_defects_that_were_left_out_are_summed_up_as_well():
    lines = [f"masks/{index}.png: mask has more than two gray values (0, {index}, 7)" for index in range(40)]
    assert summed_up_again([*lines, "masks/x.png: cannot be decoded"]) == [
        "40 files, such as masks/0.png: mask has more than two gray values (0, 0, 7)",
        "masks/x.png: cannot be decoded",
    ]


def test_jpeg_mask_says_what_jpeg_does_and_what_to_do(folder, tmp_path):
    for index in range(6):
        path = folder / "masks" / f"{index}.jpg"
        Image.fromarray(BOX * 255).resize((50, 40)).save(path, quality=60)
    with pytest.raises(DataError, match=r"more than two gray values .*JPEG .*set threshold: 128"):
        load_dataset(_config(folder), tmp_path / "home")


ROAD = ClassNumbers(values={0: 0, 3: 1, 4: 1}, names={"background": 0, "road": 1}, others="background")
STREET = np.zeros((12, 16), dtype=np.uint8)
STREET[2:5, 3:9], STREET[5:8, 3:9], STREET[9:, :] = 3, 4, 7


@pytest.mark.parametrize("form", ["gray", "palette", "16 bits", "equal channels"])
def test_one_class_of_several_is_read_from_its_numbers(tmp_path, form):
    image = Image.fromarray(STREET)
    if form == "palette":
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0, 9, 9, 9, 1, 2, 3, 4, 5, 6, 255, 255, 255])
    elif form == "16 bits":
        image = Image.fromarray(STREET.astype(np.uint16))
    elif form == "equal channels":
        image = Image.fromarray(np.stack([STREET] * 3, axis=2))
    image.save(tmp_path / "mask.png")
    found = SourceMasks(numbers=ROAD).read(tmp_path / "mask.png", shape=STREET.shape)
    np.testing.assert_array_equal(found > 0, (STREET == 3) | (STREET == 4))


def test_number_that_no_class_names_is_a_defect_with_its_pixels(tmp_path):
    Image.fromarray(STREET).save(tmp_path / "mask.png")
    strict = dataclasses.replace(ROAD, others="error")
    with pytest.raises(DataError, match="mask has 48 pixels of number 7, which data.classes does not name; add it"):
        SourceMasks(numbers=strict).read(tmp_path / "mask.png", shape=STREET.shape)
    Image.fromarray(STREET * 20).save(tmp_path / "mask.jpg")
    with pytest.raises(DataError, match="other_values: background; JPEG changes values, so save masks as PNG"):
        SourceMasks(numbers=strict).read(tmp_path / "mask.jpg", shape=STREET.shape)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.dstack([STREET, STREET * 2, STREET]), "mask is colored, but data.classes needs numbers"),
        (STREET / np.float32(8), "mask has fractions, but data.classes needs whole numbers"),
    ],
)
def test_mask_without_class_numbers_is_refused(tmp_path, pixels, message):
    Image.fromarray(pixels).save(tmp_path / "mask.tiff")
    with pytest.raises(DataError, match=message):
        SourceMasks(numbers=ROAD).read(tmp_path / "mask.tiff", shape=STREET.shape)


def test_classes_are_read_alike_everywhere_and_are_another_data_set(folder, tmp_path):
    for index in range(6):
        Image.fromarray(BOX * 3 + np.eye(40, 50, dtype=np.uint8) * 5).save(folder / "masks" / f"{index}.png")
    fingerprints = set()
    for classes in ({"background": 0, "box": [3, 8]}, {"background": 0, "line": [5, 8]}):
        sources = [{"reader": "folder", "folder": str(folder)}]
        settings = {"sources": sources, "size": 64, "classes": classes, "other_values": "background"}
        config = DataConfig.model_validate_json(json.dumps(settings))
        dataset = load_dataset(config, tmp_path / "home")
        fingerprints.add(dataset.fingerprint)
        area = (BOX > 0).mean() if "box" in classes else 40 / 2000
        assert all((image.mask > 0).mean() == area for image in native_images(config, {i.id for i in dataset.infos}))
        assert all(one.area == area for one in look(config, dataset.infos))
        assert config.class_names == tuple(name for name in classes if name != "background")
    assert len(fingerprints) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"classes": ["background"]}, "at least one class besides background must be segmented"),
        ({"classes": {"a": 1, "background": [0, 1]}}, "a number belongs to one class"),
        ({"classes": {"a": 1}, "class_name": "b"}, "class_name has no effect with classes"),
        ({"other_values": "background"}, "other_values has no effect without classes"),
        ({"classes": "lesion"}, "write the names, background first, or each name's number"),
        ({"classes": ["a", "a"]}, "the names of classes must differ"),
        ({"classes": {"a": "x"}}, "data.classes.a: must be a whole number; got 'x'"),
        (
            {"classes": {"a": 1}, "sources": [{"reader": "folder", "folder": "x", "threshold": 9}]},
            "threshold is for masks",
        ),
    ],
)
def test_classes_that_cannot_be_meant_are_refused(data, message):
    with pytest.raises(StudyFileError, match=message):
        load_study({"name": "a", "data": data})
