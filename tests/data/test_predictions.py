"""What another program predicted, in the formats that programs write."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdsearch.data.frame import Frame
from kdsearch.data.predictions import PredictionFolder, fractions, largest_whole_numbers, read_array, require_all
from kdsearch.errors import DataError

GRADED = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
MASK = (GRADED > 0.5).astype(np.uint8)


FRAME = Frame(height=4, width=4)


def _read(path):
    array = read_array(path)
    return fractions(array, path, largest_whole_numbers({path: array}))


def _png(path, array):
    Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("a.png", lambda path: _png(path, (GRADED * 255).round().astype(np.uint8)), GRADED),
        ("a.png", lambda path: _png(path, (GRADED * 65535).round().astype(np.uint16)), GRADED),
        ("a.png", lambda path: _png(path, MASK), MASK),
        ("a.png", lambda path: _png(path, MASK * 255), MASK),
        ("a.png", lambda path: Image.fromarray(MASK * 255).convert("RGB").save(path), MASK),
        ("a.png", lambda path: Image.fromarray(MASK * 255).convert("1").save(path), MASK),
        ("a.tif", lambda path: _png(path, GRADED), GRADED),
        ("a.TIFF", lambda path: _png(path, (GRADED * 255).round().astype(np.uint8)), GRADED),
        ("a.npy", lambda path: np.save(path, GRADED), GRADED),
        ("a.npy", lambda path: np.save(path, GRADED.astype(np.float16)), GRADED),
        ("a.npy", lambda path: np.save(path, MASK.astype(bool)), MASK),
        ("a.npy", lambda path: np.save(path, MASK.astype(np.int64)), MASK),
        ("a.npy", lambda path: np.save(path, 255 * MASK.astype(np.int32)), MASK),
        ("a.npy", lambda path: np.save(path, 255 * MASK.astype(np.uint16)), MASK),
        ("a.npy", lambda path: np.save(path, GRADED[None]), GRADED),
        ("a.npy", lambda path: np.save(path, np.stack([1 - GRADED, GRADED])), GRADED),
        ("a.npy", lambda path: np.save(path, np.stack([1 - GRADED, GRADED])[None]), GRADED),
        ("a.npz", lambda path: np.savez(path, GRADED), GRADED),
        ("a.npz", lambda path: np.savez(path, probabilities=np.stack([1 - GRADED, GRADED])[:, None], x=MASK), GRADED),
        ("a.npz", lambda path: np.savez_compressed(path, softmax=np.stack([1 - GRADED, GRADED])), GRADED),
    ],
)
def test_each_format_is_read_as_the_lesion_s_probability(tmp_path, name, write, expected):
    write(tmp_path / name)
    found = _read(tmp_path / name)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1 / 255


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npy", lambda path: np.save(path, 3 * GRADED - 1), "must be between 0 and 1, got -1 to 2; write probab"),
        ("a.npy", lambda path: np.save(path, np.full((4, 4), np.nan)), "must be between 0 and 1"),
        ("a.npy", lambda path: np.save(path, np.zeros(9)), r"must be H×W, or C×H×W with .* got shape \(9,\)"),
        ("a.npy", lambda path: np.save(path, np.zeros((6, 8, 2))), r"must be H×W, or C×H×W with .* \(6, 8, 2\)"),
        (
            "a.npy",
            lambda path: np.save(path, np.zeros((3, 6, 8))),
            r"with the channels background and lesion, .* \(3, 6, 8\)",
        ),
        ("a.npy", lambda path: np.save(path, np.full((4, 4), 70_000)), "must be between 0 and 1, got 7e\\+04"),
        ("a.npy", lambda path: np.save(path, np.array([["a"]])), "must hold numbers, got <U1"),
        ("a.png", lambda path: Image.fromarray(np.stack([MASK * 255, MASK, MASK], -1)).save(path), "is a color image"),
        ("a.npy", lambda path: np.save(path, np.array([{}], dtype=object)), "cannot be read as a prediction"),
        ("a.npz", lambda path: np.savez(path, a=MASK, b=MASK), "one array must be named probabilities, found a, b"),
        ("a.png", lambda path: path.write_bytes(b"no image"), "cannot be read as a prediction"),
        ("a.npz", lambda path: path.write_bytes(b"PK no archive"), "cannot be read as a prediction"),
    ],
)
def test_invalid_predictions_are_refused_by_name(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        _read(tmp_path / name)


def test_files_are_found_by_the_image_s_name_in_any_folder(tmp_path):
    for place in ("us/a.npy", "deep/er/b.npy", "c.npy"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / place, GRADED)
    (tmp_path / "notes.txt").write_text("not a prediction", encoding="utf-8")
    found = PredictionFolder(tmp_path).read(["us/a", "us/b", "us/c", "us/d"], frame=FRAME, outputs=1)
    assert [one is not None for one in found] == [True, True, True, False]
    assert found[0].shape == (1, 4, 4)
    assert found[0].mean() == pytest.approx(0.5, abs=1e-3)


def test_name_of_two_images_is_not_enough(tmp_path):
    np.save(tmp_path / "a.npy", GRADED)
    (tmp_path / "far").mkdir()
    np.save(tmp_path / "far" / "a.npy", MASK)
    near, far = PredictionFolder(tmp_path).read(["us/a", "far/a"], frame=FRAME, outputs=1)
    assert near is None, "a.npy may be of either"
    assert far is not None


def test_gaps_are_named():
    ids = [f"us/{number}" for number in range(9)]
    with pytest.raises(DataError, match="p has no prediction for 7 of 9 training images: us/0, .* us/4 and 2 more"):
        require_all([None] * 7 + [GRADED] * 2, ids, folder="p", of="training")


def test_faint_map_among_graded_ones_is_not_read_as_a_mask(tmp_path):
    _png(tmp_path / "a.png", (GRADED * 255).round().astype(np.uint8))
    _png(tmp_path / "b.png", MASK)
    graded, faint = PredictionFolder(tmp_path).read(["us/a", "us/b"], frame=FRAME, outputs=1)
    assert graded.max() > 0.9
    assert faint.max() < 0.005


def test_probabilities_are_preferred_to_a_mask_of_the_same_image(tmp_path):
    _png(tmp_path / "a.png", MASK)
    np.savez(tmp_path / "a.npz", probabilities=np.stack([1 - GRADED, GRADED])[:, None])
    assert 0 < PredictionFolder(tmp_path).read(["us/a"], frame=FRAME, outputs=1)[0].min() < 0.5


@pytest.mark.parametrize("places", [("fold0/a", "fold1/a"), ("a", "z/a"), ("0/a", "a")])
def test_several_files_that_may_be_one_image_s_are_refused(tmp_path, places):
    for place in places:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{place}.npy", GRADED)
    with pytest.raises(DataError, match="several files match the image us/a: .*; keep one"):
        PredictionFolder(tmp_path).read(["us/a"], frame=FRAME, outputs=1)


def test_folder_of_a_known_ending_is_no_file(tmp_path):
    (tmp_path / "a.png").mkdir()
    assert PredictionFolder(tmp_path).read(["us/a"], frame=FRAME, outputs=1) == [None]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="teacher.folder: .*absent is not a folder"):
        PredictionFolder(tmp_path / "absent")


CLASSES = np.array([[0, 1, 2, 2]] * 3, np.uint8)


def _indexed(path):
    image = Image.fromarray(CLASSES)
    image.putpalette([9, 9, 9] * 256)
    image.save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", lambda path: _png(path, CLASSES)),
        ("a.png", _indexed),
        ("a.npy", lambda path: np.save(path, np.eye(3, dtype=np.float32)[CLASSES].transpose(2, 0, 1))),
        ("a.npz", lambda path: np.savez(path, probabilities=np.eye(3)[CLASSES].transpose(2, 0, 1)[:, None])),
    ],
)
def test_several_classes_are_read_as_a_map_each_and_padding_is_background(tmp_path, name, write):
    write(tmp_path / name)
    (found,) = PredictionFolder(tmp_path).read(["us/a"], frame=Frame(height=4, width=4, pads=True), outputs=3)
    assert found.shape == (3, 4, 4)
    np.testing.assert_array_equal(found[:, :3].argmax(axis=0), CLASSES)
    np.testing.assert_array_equal(found[:, 3], [[1] * 4, [0] * 4, [0] * 4])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (CLASSES * 3, "a mask must hold class numbers from 0 to 2, got 0 to 6; write these, or probabilities 3×H×W"),
        (np.zeros((2, 3, 4)), r"with the channels of all 3 classes, background first, got shape \(2, 3, 4\)"),
    ],
)
def test_prediction_with_other_classes_is_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message):
        PredictionFolder(tmp_path).read(["us/a"], frame=FRAME, outputs=3)
