"""Scores at original resolution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.config.sources import FolderSource, PhantomSource
from kdsearch.data.cache import load_dataset
from kdsearch.data.frame import Frame
from kdsearch.data.native import NativeImage, native_images
from kdsearch.errors import DataError
from kdsearch.export.checks import native_scores
from tests.data.pictures import write_image, write_mask


def test_native_images_equal_the_data_set_before_resizing(tmp_path):
    for index in range(3):
        write_image(tmp_path / "images" / f"{index}.png", shape=(50, 70), seed=index)
        write_mask(tmp_path / "masks" / f"{index}.png", shape=(50, 70), box=(10, 10, 30, 30))
    sources = (FolderSource(reader="folder", folder=str(tmp_path)), PhantomSource(reader="phantom", images=10))
    config = DataConfig(sources=sources, size=32)
    dataset = load_dataset(config, tmp_path / "home")
    wanted = [info.id for info in dataset.infos][1:6]
    found = list(native_images(config, set(wanted)))
    assert [image.id for image in found] == wanted
    assert found[0].pixels.shape == found[0].mask.shape == (50, 70)
    small = np.asarray(Image.fromarray(found[0].pixels).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(small, dataset.images[1, 0])


def test_mask_of_another_shape_is_reported_with_its_image(tmp_path):
    write_image(tmp_path / "images" / "0.png")
    write_mask(tmp_path / "masks" / "0.png", shape=(3, 3))
    config = DataConfig(sources=(FolderSource(reader="folder", folder=str(tmp_path)),), size=32)
    with pytest.raises(DataError, match=r"images/0.png: mask is 3×3 pixels"):
        list(native_images(config, {"folder/0"}))


def test_logits_are_resized_before_thresholding():
    """A student that predicts its right half, by hand on an image of 10×40 whose lesion is the rightmost quarter."""
    mask = np.zeros((10, 40), np.uint8)
    mask[:, 30:] = 1
    blank = np.zeros((10, 40), np.uint8)
    images = [
        NativeImage(id="a", pixels=blank, mask=mask, tolerance_px=1.0),
        NativeImage(id="empty", pixels=blank, mask=blank, tolerance_px=1.0),
    ]
    logits = np.full((1, 4, 4), -1.0, np.float32)
    logits[:, :, 2:] = 1.0
    found = native_scores(lambda _: logits, images, ["empty", "a"], Frame(height=4, width=4))
    assert found.dice[1] == pytest.approx(2 * 100 / (100 + 200))
    assert math.isnan(found.dice[0])
    assert 0 < found.nsd[1] < 1
    assert found.hd95[1] == pytest.approx(10 / math.hypot(10, 40))
