"""Frames of a video, in different parts of a split, are said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.campaign.events import DataReady
from kdsearch.cli.main import main
from kdsearch.cli.progress import facts_about_images
from kdsearch.config.data import DataConfig
from kdsearch.config.sources import FolderSource
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import dump_summary, read_summary
from kdsearch.data.neighbors import neighbors_apart, summarize
from kdsearch.data.splits import split
from kdsearch.distill.materials import Materials
from tests.data.pictures import write_mask

FRAMES = 48


def _folder(place, *, video):
    """Views that move over a landscape, half a view in a frame; or views of as many landscapes."""
    (place / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    size = (30 * FRAMES + 80, 64)
    for number in range(FRAMES):
        seed = rng.spawn(1)[0] if not video else np.random.default_rng(7)
        land = Image.fromarray(seed.integers(0, 255, (4, size[0] // 40), dtype=np.uint8)).resize(size)
        left = 14 * number
        land.crop((left, 0, left + 64, 64)).save(place / "images" / f"frame {number}.png")
        write_mask(place / "masks" / f"frame {number}.png", shape=(64, 64))
    return place


def _loaded(folder, home, **given):
    source = FolderSource(reader="folder", folder=str(folder), **given)
    config = DataConfig(sources=(source,), size=32)
    dataset = load_dataset(config, home)
    return dataset, split(dataset, config.split, train_on_negatives=False)


def test_frames_of_a_video_in_different_parts_are_counted(tmp_path):
    dataset, splits = _loaded(_folder(tmp_path / "video", video=True), tmp_path / "home")
    found = neighbors_apart(dataset, splits)
    assert found is not None
    assert found.pairs == FRAMES - 1
    assert found.alike > 0.5 * found.pairs
    assert 0 < found.apart <= found.alike


def test_single_images_are_not_mistaken_for_a_video(tmp_path):
    assert neighbors_apart(*_loaded(_folder(tmp_path / "pictures", video=False), tmp_path / "home")) is None


def test_given_groups_are_trusted(tmp_path):
    folder = _folder(tmp_path / "video", video=True)
    rows = [f"frame {number},{number // 8}" for number in range(FRAMES)]
    (folder / "table.csv").write_text("\n".join(["image,group", *rows]))
    assert neighbors_apart(*_loaded(folder, tmp_path / "home", csv="table.csv")) is None


def test_caution_is_stored_and_said_by_run_and_data(tmp_path, monkeypatch, capsys):
    dataset, splits = _loaded(_folder(tmp_path / "video", video=True), tmp_path / "home")
    summary = summarize(dataset, splits)
    assert "scores are probably too high" in summary.caution
    assert read_summary(dump_summary(summary)) == summary
    ready = DataReady(materials=Materials(dataset=dataset, splits=splits), device="cpu", caution=summary.caution)
    facts = facts_about_images(ready)
    assert any(line.startswith("warning   no groups (patients, videos) are given") for line in facts)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    Path("study.yaml").write_text("name: mine\ndata: {sources: [{reader: folder, folder: video}], size: 32}\n")
    assert main(["data", "study.yaml"]) == 0
    assert "Caution: no groups (patients, videos) are given" in capsys.readouterr().out


def test_summary_of_an_older_release_is_read():
    counts = {"images": 9, "train": 5, "validation": 2, "test": 2}
    found = read_summary(json.dumps({"fingerprint": "f", "split": "s", "sources": ["a"], **counts}))
    assert (found.caution, found.validation_groups) == ("", None)


@pytest.mark.slow
@pytest.mark.realdata
def test_bus_bra_without_its_patients_is_noticed(real_data, tmp_path):
    for part, folder, prefix in (("images", "Images", "bus_"), ("masks", "Masks", "mask_")):
        (tmp_path / "data" / part).mkdir(parents=True)
        for path in (real_data / "busbra" / "BUSBRA" / folder).glob("*.png"):
            (tmp_path / "data" / part / path.name.replace(prefix, "")).symlink_to(path)
    found = neighbors_apart(*_loaded(tmp_path / "data", tmp_path / "home"))
    assert found is not None
    assert found.apart > 50
