"""Nothing is lost in silence: small lesions, turned images, files that are not read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.cli.main import main
from kdsearch.config.data import DataConfig
from kdsearch.config.sources import FolderSource
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import dump_infos, read_infos
from kdsearch.errors import DataError, KdsearchError
from tests.data.pictures import write_image, write_mask


@pytest.fixture
def folder(tmp_path):
    for index in range(12):
        write_image(tmp_path / "data" / "images" / f"{index}.png", seed=index)
        write_mask(tmp_path / "data" / "masks" / f"{index}.png")
    return tmp_path / "data"


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def _config(folder, **changes):
    given = {"size": 32} | changes
    return DataConfig(sources=(FolderSource(reader="folder", folder=str(folder)),), **given)


def _said(dataset):
    return [str(remark) for remark in dataset.remarks]


def test_vanishing_lesion_keeps_one_pixel_and_a_sufficient_size_is_reported(folder, home):
    for index in range(3):
        write_image(folder / "images" / f"{index}.png", shape=(256, 256), seed=index)
        write_mask(folder / "masks" / f"{index}.png", shape=(256, 256), box=(100, 100, 105, 105))
    for _ in range(2):
        dataset = load_dataset(_config(folder), home)
        assert dataset.has_foreground.all()
        assert (dataset.masks[:2] > 0).sum(axis=(1, 2)).tolist() == [1, 1]
        assert _said(dataset) == [
            "3 images whose lesion is too small for size 32 and is reduced to one pixel (data.size: 64 keeps all)"
        ]
        assert dataset.remarks[0].names == ("folder/0", "folder/1", "folder/2")
    assert not load_dataset(_config(folder, size=64), home).remarks


def test_data_set_whose_lesions_all_fit_has_the_fingerprint_of_older_releases(home):
    stored = Path(__file__).parents[1] / "stored" / "unversioned"
    (name,) = [path.name for path in (stored / "home" / "data").iterdir()]
    assert load_dataset(_config(stored / "images"), home).fingerprint == name


def _turned(folder, orientation):
    for index in range(4):
        path = folder / "images" / f"{index}.png"
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()


def test_images_that_exif_turns_are_said(folder, home):
    _turned(folder, 3)
    dataset = load_dataset(_config(folder), home)
    assert _said(dataset)[0].startswith("4 images with an EXIF rotation that their masks lack")


def test_exif_rotation_is_applied_to_the_image_and_to_a_mask_of_its_stored_shape(folder, home):
    upright = load_dataset(_config(folder), home)
    _turned(folder, 6)
    write_mask(folder / "masks" / "0.png", shape=(50, 40), box=(10, 10, 30, 30))
    shown = load_dataset(_config(folder), home)
    np.testing.assert_array_equal(shown.masks[1], np.rot90(upright.masks[1], -1))
    assert np.abs(shown.images[1, 0].astype(int) - np.rot90(upright.images[1, 0], -1)).mean() < 12, "JPEG"
    assert shown.masks[0, :20, :24].any(), "this mask has the shape that is shown"


def _clutter(folder):
    write_image(folder / "images" / "w.gif")
    write_mask(folder / "masks" / "w.gif")
    np.save(folder / "images" / "n.npy", np.zeros((4, 4)))
    write_image(folder / "images" / "sub" / "s.png")
    (folder / "images" / "._0.png").write_bytes(b"Mac OS X")


def test_files_that_are_not_read_are_counted_and_named(folder, home):
    _clutter(folder)
    other, below, hidden = load_dataset(_config(folder), home).remarks
    assert str(other).startswith(
        "3 files in image folders that are ignored (.gif, .npy; kdsearch reads PNG, JPEG, TIFF"
    )
    assert {Path(name).name for name in other.names} == {"w.gif", "n.npy"}
    assert str(below) == "1 images in subfolders, which are ignored; move them up"
    assert hidden.quiet
    assert len(hidden.names) == 1


def test_data_counts_what_is_found_read_and_left_out(folder, tmp_path, monkeypatch, capsys):
    _clutter(folder)
    (folder / "images" / "0.png").write_bytes(b"broken")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    text = "name: mine\ndata: {sources: [{reader: folder, folder: data}], size: 32, on_invalid: skip}\n"
    Path("study.yaml").write_text(text, encoding="utf-8")
    assert main(["data", "study.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "folder: 29 files found, 11 images and 11 masks read, 7 files left out: 2 because of defects\n" in shown
    assert "w.gif" in shown
    assert "sub/s.png" in shown


def test_mask_whose_image_has_an_unsupported_suffix_is_named(folder, home):
    write_image(folder / "images" / "w.gif")
    write_mask(folder / "masks" / "w.png")
    with pytest.raises(
        DataError, match=r"w.png: has no image in .*images; w.gif is not read, because only PNG, JPEG, TIFF"
    ):
        load_dataset(_config(folder), home)


def test_folder_of_nothing_that_can_be_read_says_what_is_there_and_what_is_wanted(folder, home):
    for part in ("images", "masks"):
        for path in list((folder / part).iterdir()):
            path.rename(path.with_suffix(".webp"))
    with pytest.raises(DataError, match=r"no usable image in .*/images, .*expected PNG, .*found 24 files"):
        load_dataset(_config(folder), home)


@pytest.mark.parametrize("damage", ["images.npy", "masks.npy", "infos.json", "depth.json"])
@pytest.mark.parametrize("how", ["cut", "emptied", "deleted"])
def test_damaged_cache_is_rebuilt_with_a_warning(folder, home, caplog, damage, how):
    first = load_dataset(_config(folder), home)
    images = np.array(first.images)
    path = home / "data" / first.fingerprint / damage
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if how == "emptied" else -3])
    again = load_dataset(_config(folder), home)
    np.testing.assert_array_equal(again.images, images)
    assert again.fingerprint == first.fingerprint
    assert sum("are damaged" in record.message for record in caplog.records) >= 1


@pytest.mark.parametrize("kind", ["file", "below a file", "too long"])
def test_home_that_cannot_be_used_is_one_message(folder, tmp_path, kind):
    (tmp_path / "file").touch()
    place = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "home", "too long": tmp_path / ("x" * 300)}
    with pytest.raises(KdsearchError, match="kdsearch keeps its files in .*, which cannot be used: .*KDSEARCH_HOME"):
        load_dataset(_config(folder), place[kind])


def test_lists_of_images_of_the_first_releases_are_read(folder, home):
    infos = load_dataset(_config(folder), home).infos
    assert json.loads(dump_infos(infos))["schema"] == 1
    assert read_infos(dump_infos(infos)) == infos
    stored = next((Path(__file__).parents[1] / "stored" / "unversioned" / "home" / "data").glob("*/infos.json"))
    assert read_infos(stored.read_bytes())[0].source == "folder"


def test_arrays_that_an_older_release_made_are_read_for_results_only(folder, home):
    """Its rules were others: here a lesion vanished."""
    write_image(folder / "images" / "0.png", shape=(256, 256))
    write_mask(folder / "masks" / "0.png", shape=(256, 256), box=(100, 100, 105, 105))
    now = load_dataset(_config(folder), home)
    (reading,) = (home / "data").glob("*.reading.json")
    files = reading.name.partition(".")[0]
    assert files != now.fingerprint
    shutil.copytree(home / "data" / now.fingerprint, home / "data" / files)
    assert load_dataset(_config(folder), home, stored=files).fingerprint == files
    assert load_dataset(_config(folder), home).fingerprint == now.fingerprint


def test_name_that_is_not_utf_8_is_a_defect_that_shows_it(folder, home):
    for part in ("images", "masks"):
        (folder / part / "0.png").rename(folder / part / "pati\udce9nt.png")
    with pytest.raises(DataError, match=r"images/pati\\xe9nt.png: its name is not UTF-8; rename it"):
        load_dataset(_config(folder), home)
    dataset = load_dataset(_config(folder, on_invalid="skip"), home)
    assert len(dataset.infos) == 11
    assert len(dataset.skipped) == 2


def test_dollar_sign_that_begins_no_variable_is_explained(home):
    with pytest.raises(
        DataError, match=r"folder d\$1: \$ must be followed by the name of an environment variable; write \$\$"
    ):
        load_dataset(_config("d$1"), home)
