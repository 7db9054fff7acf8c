"""Images without masks: read without them, and never related to validation or test images."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from kdsearch.config.data import DataConfig, SplitConfig
from kdsearch.config.sources import FolderSource, ImagesSource, PhantomSource
from kdsearch.data.cache import load_dataset, load_unlabelled, open_part
from kdsearch.data.splits import split
from kdsearch.errors import DataError
from tests.data.pictures import write_image, write_mask


@pytest.fixture
def folder(tmp_path):
    for index in range(9):
        write_image(tmp_path / "ours" / "images" / f"{index}.png", seed=index)
        write_mask(tmp_path / "ours" / "masks" / f"{index}.png", box=(10, 10, 30, 30))
    return tmp_path / "ours"


@pytest.fixture
def others(tmp_path):
    """Four images of their own."""
    for index in range(4):
        write_image(tmp_path / "theirs" / f"{index}.png", seed=100 + index)
    return tmp_path / "theirs"


def _config(folder, *unlabelled, **changes):
    ours = FolderSource(reader="folder", folder=str(folder), name="ours")
    return DataConfig(sources=(ours,), unlabelled=unlabelled, size=32, **changes)


def _images(folder, **settings):
    return ImagesSource(reader="images", folder=str(folder), **settings)


def _load(config, home):
    dataset = load_dataset(config, home)
    splits = split(dataset, SplitConfig(validation=0.3, test=0.3), train_on_negatives=False)
    return dataset, splits, load_unlabelled(config, home, dataset, splits)


def _names(part):
    return [part.whole.infos[position].id for position in part.positions]


def test_study_without_them_has_none(folder, tmp_path):
    assert _load(_config(folder), tmp_path / "home")[2] is None


def test_all_of_them_are_read_and_a_worker_opens_the_same(folder, others, tmp_path):
    _, _, part = _load(_config(folder, _images(others), unlabelled_fraction=0.25), tmp_path / "home")
    assert _names(part) == [f"images/{index}" for index in range(4)]
    assert part.whole.images.shape == (4, 1, 32, 32)
    assert (part.fraction, part.sources) == (0.25, ("images",))
    opened = open_part(tmp_path / "home", part.place())
    np.testing.assert_array_equal(opened.whole.images, part.whole.images)
    assert opened.fingerprint == part.fingerprint


def test_data_set_teacher_and_split_are_those_without_them(folder, others, tmp_path):
    without, splits, _ = _load(_config(folder), tmp_path / "home")
    beside, same, _ = _load(_config(folder, _images(others)), tmp_path / "home")
    assert (without.fingerprint, splits.fingerprint) == (beside.fingerprint, same.fingerprint)


def test_masks_of_a_plain_folder_are_not_read_nor_missed(folder, tmp_path):
    for index in range(3):
        write_image(tmp_path / "more" / "images" / f"{index}.png", seed=50 + index)
    (tmp_path / "more" / "masks").mkdir()
    (tmp_path / "more" / "masks" / "0.png").write_text("no picture")
    (tmp_path / "more" / "masks" / "of nothing.png").write_text("no picture")
    source = FolderSource(reader="folder", folder=str(tmp_path / "more"), name="more")
    assert len(_load(_config(folder, source), tmp_path / "home")[2].positions) == 3


def test_doubles_of_validation_and_test_images_are_left_out(folder, others, tmp_path):
    dataset, splits, _ = _load(_config(folder), tmp_path / "home")
    for part in ("train", "validation", "test"):
        name = dataset.infos[getattr(splits, part)[0]].id.rpartition("/")[2]
        Image.open(folder / "images" / f"{name}.png").save(others / f"{part}.tiff")
    found = _load(_config(folder, _images(others)), tmp_path / "home")[2]
    assert [name for name in _names(found) if not name[-1].isdigit()] == ["images/train"]
    assert len(found.positions) == 5
    swapped = split(dataset, SplitConfig(validation=0.3, test=0.3, seed=1), train_on_negatives=False)
    held = {dataset.infos[place].id for place in (*swapped.validation, *swapped.test)}
    left = {found.whole.infos[p].id for p, ids in enumerate(found.whole.together) if held.isdisjoint(ids)}
    assert set(_names(found.beside(dataset, swapped))) == left


def test_patients_with_a_duplicate_are_left_out_entirely(folder, tmp_path):
    dataset, splits, _ = _load(_config(folder), tmp_path / "home")
    name = dataset.infos[splits.test[0]].id.rpartition("/")[2]
    theirs = tmp_path / "theirs"
    for index in range(4):
        write_image(theirs / "images" / f"{index}.png", seed=100 + index)
        write_mask(theirs / "masks" / f"{index}.png", box=None)
    shutil.copy(folder / "images" / f"{name}.png", theirs / "images" / "0.png")
    (theirs / "table.csv").write_text("image,group\n0,p\n1,p\n2,q\n3,q\n")
    source = FolderSource(reader="folder", folder=str(theirs), name="theirs", csv="table.csv")
    assert _names(_load(_config(folder, source), tmp_path / "home")[2]) == ["theirs/2", "theirs/3"]


@pytest.mark.parametrize("plain", [True, False])
def test_patients_of_one_name_in_plain_folders_are_one(folder, tmp_path, plain):
    """One hospital has a folder with masks and one without; patients have the same names in both tables."""
    (folder / "table.csv").write_text("image,group\n" + "".join(f"{index},p{index}\n" for index in range(9)))
    ours = FolderSource(reader="folder", folder=str(folder), name="ours", csv="table.csv")
    theirs = tmp_path / "theirs"
    for index in range(9):
        write_image(theirs / ("" if plain else "images") / f"{index}.png", seed=100 + index)
    (theirs / "table.csv").write_text("image,group\n" + "".join(f"{index},p{index}\n" for index in range(9)))
    source = (
        _images(theirs, csv="table.csv")
        if plain
        else FolderSource(reader="folder", folder=str(theirs), name="images", csv="table.csv")
    )
    config = DataConfig(sources=(ours,), unlabelled=(source,), size=32)
    dataset, splits, part = _load(config, tmp_path / "home")
    trained = {dataset.infos[place].id.rpartition("/")[2] for place in splits.train}
    assert {name.rpartition("/")[2] for name in _names(part)} == trained


def test_fingerprint_follows_their_content_and_the_data_set(folder, others, tmp_path):
    first = _load(_config(folder, _images(others)), tmp_path / "home")[2].fingerprint
    assert _load(_config(folder, _images(others)), tmp_path / "home")[2].fingerprint == first
    write_image(others / "0.png", seed=7_000)
    second = _load(_config(folder, _images(others)), tmp_path / "home")[2].fingerprint
    write_image(folder / "images" / "0.png", seed=8_000)
    third = _load(_config(folder, _images(others)), tmp_path / "home")[2].fingerprint
    assert len({first, second, third}) == 3


def test_data_set_of_only_duplicates_is_refused(folder, tmp_path):
    dataset, splits, _ = _load(_config(folder), tmp_path / "home")
    (tmp_path / "copies").mkdir()
    for place in (*splits.validation, *splits.test):
        name = dataset.infos[place].id.rpartition("/")[2]
        shutil.copy(folder / "images" / f"{name}.png", tmp_path / "copies")
    with pytest.raises(DataError, match=r"data.unlabelled: all \d images belong to groups of validation or test"):
        _load(_config(folder, _images(tmp_path / "copies")), tmp_path / "home")


def test_bad_folders_and_files_are_named(folder, others, tmp_path, caplog):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="data.unlabelled: no folder has a readable image"):
        _load(_config(folder, _images(tmp_path / "empty")), tmp_path / "home")
    with pytest.raises(DataError, match="data.unlabelled: source images: .*gone is not a folder; put images into it"):
        _load(_config(folder, _images(tmp_path / "gone")), tmp_path / "home")
    (others / "bad.png").write_text("no picture")
    with pytest.raises(DataError, match=r"1 file cannot be used:\n.*bad.png"):
        _load(_config(folder, _images(others)), tmp_path / "home")
    part = _load(_config(folder, _images(others), on_invalid="skip"), tmp_path / "home")[2]
    assert len(part.positions) == 4
    assert "bad.png" in part.whole.skipped[0]
    assert "1 unlabelled images with defects are left out" in caplog.text
    with pytest.raises(
        DataError, match=r"data.unlabelled: folder \$NOT_SET: the environment variable NOT_SET is not set"
    ):
        _load(_config(folder, _images("$NOT_SET")), tmp_path / "home")


def test_simulated_images_need_another_seed():
    def sources(seed):
        return DataConfig(unlabelled=(PhantomSource(reader="phantom", name="more", seed=seed),))

    with pytest.raises(ValidationError, match="phantom sources with the same seed have the same images"):
        sources(0)
    assert sources(1).unlabelled[0].seed == 1
    twice = tuple(PhantomSource(reader="phantom", name=name) for name in ("a", "b"))
    assert DataConfig(sources=twice, unlabelled=(_images("scans"),)).unlabelled, "their doubles are their own affair"


def test_fraction_without_such_sources_is_idle():
    with pytest.raises(ValidationError, match="unlabelled_fraction has no effect without data.unlabelled"):
        DataConfig(unlabelled_fraction=0.2)


def test_names_differ_from_those_of_labeled_sources(folder, others):
    with pytest.raises(ValidationError, match="sources must have different names"):
        _config(folder, _images(others, name="ours"))
