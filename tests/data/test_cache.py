"""The cache: read once, kept by content, defects listed together."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig, SplitConfig
from kdsearch.config.sources import FolderSource, PhantomSource, PublishedSource
from kdsearch.data.cache import load_dataset, open_dataset
from kdsearch.data.splits import split
from kdsearch.errors import DataError
from tests.data.pictures import write_image, write_mask


@pytest.fixture
def folder(tmp_path):
    for index in range(6):
        write_image(tmp_path / "data" / "images" / f"{index}.png", seed=index)
        write_mask(tmp_path / "data" / "masks" / f"{index}.png", box=None if index == 5 else (10, 10, 30, 30))
    return tmp_path / "data"


def _config(folder, **changes):
    return DataConfig(sources=(FolderSource(reader="folder", folder=str(folder)),), size=32, **changes)


def test_images_are_memory_mapped_and_keep_their_names(folder, tmp_path):
    dataset = load_dataset(_config(folder), tmp_path / "home")
    assert isinstance(dataset.images, np.memmap)
    assert dataset.images.shape == (6, 1, 32, 32)
    assert dataset.masks.shape == (6, 32, 32)
    assert dataset.images.dtype == np.uint8
    assert [info.id for info in dataset.infos] == [f"folder/{index}" for index in range(6)]
    assert dataset.has_foreground.tolist() == [True] * 5 + [False]


def test_second_load_reads_the_cache_and_a_worker_can_open_it(folder, tmp_path):
    first = load_dataset(_config(folder), tmp_path / "home")
    stamp = (tmp_path / "home" / "data" / first.fingerprint / "images.npy").stat().st_mtime_ns
    assert load_dataset(_config(folder), tmp_path / "home").fingerprint == first.fingerprint
    assert (tmp_path / "home" / "data" / first.fingerprint / "images.npy").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(open_dataset(tmp_path / "home", first.fingerprint).images, first.images)


def test_fingerprint_follows_content_and_not_place_or_time(folder, tmp_path):
    before = load_dataset(_config(folder), tmp_path / "home").fingerprint
    moved = folder.rename(tmp_path / "moved")
    assert load_dataset(_config(moved), tmp_path / "home").fingerprint == before
    mask = np.asarray(Image.open(moved / "masks" / "0.png")).copy()
    mask[20, 20] = 0
    Image.fromarray(mask).save(moved / "masks" / "0.png")
    assert load_dataset(_config(moved), tmp_path / "home").fingerprint != before


def test_fingerprint_follows_names_and_size(folder, tmp_path):
    before = load_dataset(_config(folder), tmp_path / "home").fingerprint
    assert load_dataset(_config(folder).model_copy(update={"size": 48}), tmp_path / "home").fingerprint != before
    (folder / "images" / "0.png").rename(folder / "images" / "zero.png")
    (folder / "masks" / "0.png").rename(folder / "masks" / "zero.png")
    assert load_dataset(_config(folder), tmp_path / "home").fingerprint != before


def _break(folder):
    (folder / "images" / "0.png").write_bytes(b"broken")
    write_mask(folder / "masks" / "1.png", shape=(10, 10))
    (folder / "masks" / "2.png").unlink()
    write_image(folder / "masks" / "3.png")


def test_all_defects_are_listed_together_with_paths(folder, tmp_path):
    _break(folder)
    with pytest.raises(DataError) as caught:
        load_dataset(_config(folder), tmp_path / "home")
    text = str(caught.value)
    assert "4 files cannot be used:" in text
    for part in (
        "images/0.png: cannot be decoded",
        "masks/1.png: mask is",
        "images/2.png: has no mask",
        "masks/3.png: mask has",
    ):
        assert part in text
    assert "on_invalid: skip" in text
    assert not list((tmp_path / "home").rglob("*.npy"))


def test_defects_are_left_out_where_the_study_says_so(folder, tmp_path):
    _break(folder)
    dataset = load_dataset(_config(folder, on_invalid="skip"), tmp_path / "home")
    assert [info.id for info in dataset.infos] == ["folder/4", "folder/5"]
    assert len(dataset.skipped) == 4


def test_defects_after_caching_are_found_and_skipped_files_are_reported_each_time(folder, tmp_path, caplog):
    load_dataset(_config(folder), tmp_path / "home")
    write_image(folder / "images" / "late.png")
    with pytest.raises(DataError, match="late.png: has no mask"):
        load_dataset(_config(folder), tmp_path / "home")
    for _ in range(2):
        load_dataset(_config(folder, on_invalid="skip"), tmp_path / "home")
    assert [record.message[:34] for record in caplog.records] == ["1 images with defects are left out"] * 2


def test_sources_are_combined_and_kept_apart_by_name(folder, tmp_path):
    sources = (
        FolderSource(reader="folder", folder=str(folder), name="ours"),
        PhantomSource(reader="phantom", images=10),
    )
    dataset = load_dataset(DataConfig(sources=sources, size=32), tmp_path / "home")
    assert [info.source for info in dataset.infos] == ["ours"] * 6 + ["phantom"] * 10


def test_unset_variable_says_where_to_get_the_data(tmp_path, monkeypatch):
    monkeypatch.delenv("KDSEARCH_NOWHERE", raising=False)
    config = DataConfig(sources=(PublishedSource(reader="udiat", folder="$KDSEARCH_NOWHERE/b"),), size=32)
    with pytest.raises(
        DataError,
        match="data.sources: folder .*variable KDSEARCH_NOWHERE is not set; .*--data .*FOLDER; get the data: UDIAT",
    ):
        load_dataset(config, tmp_path)


def test_variable_in_a_folder_is_filled_in(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KDSEARCH_HERE", str(folder.parent))
    config = DataConfig(sources=(FolderSource(reader="folder", folder="$KDSEARCH_HERE/data"),), size=32)
    assert len(load_dataset(config, tmp_path / "home").infos) == 6


@pytest.mark.realdata
def test_real_breast_has_one_mask_that_is_not_two_valued(real_data, tmp_path):
    source = PublishedSource(reader="breast", folder=str(real_data / "breast"))
    with pytest.raises(DataError, match=r"1 file .*\n.*case010_tumor.png: mask has more than two gray values"):
        load_dataset(DataConfig(sources=(source,), size=32), tmp_path)
    dataset = load_dataset(DataConfig(sources=(source,), size=32, on_invalid="skip"), tmp_path)
    assert len(dataset.infos) == 255
    assert int((~dataset.has_foreground).sum()) == 4


def _copy(folder, other, *, table=""):
    for part in ("images", "masks"):
        (other / part).mkdir(parents=True)
        for path in (folder / part).iterdir():
            Image.open(path).save(other / part / path.with_suffix(".tiff").name)
    if table:
        (other / "table.csv").write_text(table)
    return other


def test_near_duplicates_are_joined_where_no_group_is_given_and_across_sources(folder, tmp_path):
    table = "image,group\n" + "".join(f"{index},p{index // 2}\n" for index in range(6))
    other = _copy(folder, tmp_path / "other", table=table)
    sources = (
        FolderSource(reader="folder", folder=str(folder), name="ours"),
        FolderSource(reader="folder", folder=str(other), name="theirs", csv="table.csv"),
    )
    dataset = load_dataset(DataConfig(sources=sources, size=32), tmp_path / "home")
    groups = [info.group for info in dataset.infos]
    assert groups[:6] == groups[6:], "each image is with its copy"
    assert groups[0] == groups[1] != groups[2], "and with the rest of its patient"
    splits = split(dataset, SplitConfig(validation=0.34, test=0.33), train_on_negatives=True)
    for part in (splits.train, splits.validation, splits.test):
        assert {position % 6 for position in part} == {position % 6 for position in part if position < 6}


def test_images_of_a_source_without_groups_are_joined_by_their_looks(folder, tmp_path):
    Image.open(folder / "images" / "1.png").save(folder / "images" / "0.png")
    dataset = load_dataset(_config(folder), tmp_path / "home")
    assert [info.group for info in dataset.infos] == ["folder/0", "folder/0", *(f"folder/{n}" for n in range(2, 6))]


def test_deep_images_share_the_depth_of_their_source_unless_it_is_declared(folder, tmp_path):
    for index, brightest in enumerate((200, 900, 3000)):
        ramp = np.linspace(0, brightest, 64 * 64).reshape(64, 64)
        Image.fromarray(ramp.astype(np.uint16)).save(folder / "images" / f"{index}.png")
        write_mask(folder / "masks" / f"{index}.png", shape=(64, 64))
    dataset = load_dataset(_config(folder), tmp_path / "home")
    assert dataset.whites == (4095,)
    assert dataset.images[:3].max(axis=(1, 2, 3)) == pytest.approx([200 / 16, 900 / 16, 3000 / 16], abs=4)
    source = FolderSource(reader="folder", folder=str(folder), bits=16)
    declared = load_dataset(DataConfig(sources=(source,), size=32), tmp_path / "home")
    assert declared.whites == (65535,)
    assert declared.fingerprint != dataset.fingerprint


def test_two_processes_build_one_data_set_once(folder, tmp_path):
    program = (
        "import sys, logging; from pathlib import Path\n"
        "from kdsearch.data import cache; from kdsearch.config.data import DataConfig\n"
        "store = cache.atomic_folder\n"
        "def counted(*parts, **how): print('stored', flush=True); return store(*parts, **how)\n"
        "cache.atomic_folder = counted\n"
        "cache.load_dataset(DataConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, _config(folder).model_dump_json(), str(tmp_path / "home")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert "".join(said).count("stored") == 1


def test_colored_images_are_reported_each_time(folder, tmp_path):
    for index in range(3):
        path = folder / "images" / f"{index}.png"
        gray = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(np.dstack([gray, gray // 2, 255 - gray])).save(path)
    for _ in range(2):
        remarks = [str(remark) for remark in load_dataset(_config(folder), tmp_path / "home").remarks]
        said = "3 images that are colored (50% of all), which kdsearch converts to gray; data.channels: 3 keeps"
        assert any(remark.startswith(said) for remark in remarks)
