"""The audit: what is found is what was put in, and on real sets what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.cli.main import main
from kdsearch.config.data import DataConfig
from kdsearch.data.audit import composition, findings, look
from kdsearch.data.cache import load_dataset

SIDE = 64


def _picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)).resize((SIDE, SIDE))


def _mask(*boxes):
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for top, bottom, left, right, value in boxes:
        mask[top:bottom, left:right] = value
    return Image.fromarray(mask)


LESION = (10, 30, 10, 30, 255)
MASKS = {
    "plain": _mask(LESION),
    "border": _mask((0, 20, 0, 30, 255)),
    "speck": _mask(LESION, (50, 51, 50, 51, 255)),
    "hole": _mask(LESION, (15, 20, 15, 20, 0)),
    "parts": _mask(LESION, (40, 55, 40, 55, 255)),
    "all": _mask((1, 63, 1, 63, 255)),
    "tiny": _mask((10, 12, 10, 11, 255)),
    "normal": _mask(),
    "colored": _mask(LESION),
    "double": _mask(LESION),
    "again": _mask(LESION),
}


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    """Images each of which has one thing to be found."""
    place = tmp_path_factory.mktemp("pictures")
    for number, (name, mask) in enumerate(MASKS.items()):
        for part in ("images", "masks"):
            (place / part).mkdir(exist_ok=True)
        picture = _picture(100 if name in ("double", "again") else number).convert("RGB")
        if name == "colored":
            picture.paste((255, 255, 0), (0, 0, 6, 6))
        picture.save(place / "images" / f"{name}.png")
        mask.save(place / "masks" / f"{name}.png")
    rows = [f"{name},{'malignant' if name == 'again' else 'benign'}" for name in MASKS]
    (place / "table.csv").write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    return place


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


def _looks(config, home):
    return list(look(config, load_dataset(config, home).infos))


def _config(reader, folder, **given):
    sources = ({"reader": reader, "folder": str(folder), **given},)
    return DataConfig.model_validate({"sources": sources, "size": 32, "on_invalid": "skip"})


def test_each_thing_is_found_where_it_was_put(folder, home):
    looks = _looks(_config("folder", folder, csv="table.csv"), home)
    found = {finding.what: finding.images for finding in findings(looks)}
    names = {what: {name.removeprefix("folder/") for ids in images for name in ids} for what, images in found.items()}
    assert names == {
        "near-duplicates with different labels": {"double", "again"},
        "masks that touch the image's border": {"border"},
        "masks with specks": {"speck"},
        "masks with holes": {"hole"},
        "masks with several parts": {"parts"},
        "masks over 60% of the image": {"all"},
        "masks under 0.1% of the image": {"tiny"},
        "images with colored pixels, such as burned-in measurements": {"colored"},
        "negative images": {"normal"},
        "near-duplicates, which every split keeps in one part": {"double", "again"},
    }


def test_composition_counts_images_groups_and_areas(folder, home):
    head, benign, malignant = composition(_looks(_config("folder", folder, csv="table.csv"), home))
    assert head[:4] == ("source", "label", "images", "groups")
    assert benign[:5] == ("folder", "benign", "10", "10", "64 × 64")
    assert malignant == ("folder", "malignant", "1", "1", "64 × 64", "9.8–9.8–9.8")


@pytest.mark.slow
@pytest.mark.realdata
def test_busi_has_what_is_known_of_it(real_data, real_home):
    config = _config("busi", real_data / "busi").model_copy(update={"on_invalid": "error"})
    looks = _looks(config, real_home)
    found = {finding.what: finding for finding in findings(looks)}
    assert len(found["masks in several files, which were merged"].ids) == 17
    assert len(found["negative images"].ids) == 133
    across = found["near-duplicates with different labels"].images
    assert any({"busi/benign (433)", "busi/malignant (145)"} <= set(together) for together in across)
    doubles = found["near-duplicates, which every split keeps in one part"]
    assert len(doubles.images) >= 137, "hashes alone know so many clusters"
    assert len(doubles.ids) >= 303
    assert found["images with colored pixels, such as burned-in measurements"].ids


@pytest.mark.realdata
def test_breast_has_what_is_known_of_it(real_data, real_home):
    looks = _looks(_config("breast", real_data / "breast"), real_home)
    found = {finding.what: finding.ids for finding in findings(looks)}
    assert len(found["images with transparent pixels, which are read as black"]) == 31
    assert found["negative images"] == tuple(f"breast/case{number}" for number in ("045", "061", "209", "213"))


def test_page_and_tables_describe_the_study_s_data(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    text = f"name: mine\ndata: {{sources: [{{reader: folder, folder: {folder}, csv: table.csv}}], size: 32}}\n"
    Path("study.yaml").write_text(text, encoding="utf-8")
    assert main(["data", "study.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "2 near-duplicates with different labels: folder/again = folder/double" in shown
    assert "test, locked" in shown
    page = Path("mine-data.html").read_text(encoding="utf-8")
    assert page.count("<img ") >= len(MASKS) - 1
    assert "http" not in page.split("</style>")[1]


def test_simulated_images_have_a_page_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    Path("study.yaml").write_text("name: mine\ndata: {sources: [{reader: phantom, images: 40}], size: 32}\n")
    assert main(["data", "study.yaml", "--out", "pages/p.html"]) == 0
    assert "validation" in capsys.readouterr().out
    assert Path("pages/p.html").is_file()


def test_missing_folder_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text("name: mine\ndata: {sources: [{reader: folder, folder: nowhere}]}\n")
    assert main(["data", "study.yaml"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not Path("mine-data.html").exists()


def test_labels_that_look_like_markup_are_shown_as_they_are(tmp_path, monkeypatch, capsys):
    for number in range(12):
        for part, picture in (("images", _picture(number)), ("masks", _mask(LESION))):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "data" / part / f"[b]{number}.png")
    rows = [f"[b]{number},{'[/red]' if number % 2 else '[a]'}" for number in range(12)]
    (tmp_path / "data" / "table.csv").write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    text = "name: mine\ndata: {sources: [{reader: folder, folder: data, csv: table.csv}], size: 32}\n"
    Path("study.yaml").write_text(text, encoding="utf-8")
    assert main(["data", "study.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "[/red]" in shown
    assert "[a]" in shown


def test_check_names_columns_that_are_not_read_and_refuses_those_of_patients(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    text = "name: mine\ndata: {sources: [{reader: folder, folder: data, csv: table.csv}]}\n"
    Path("study.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "data" / "table.csv").write_text("image,age\na,40\n", encoding="utf-8")
    assert main(["check", "study.yaml"]) == 0
    assert "ignored columns: age" in capsys.readouterr().out
    (tmp_path / "data" / "table.csv").write_text("image,patient\na,40\n", encoding="utf-8")
    assert main(["check", "study.yaml"]) == 2
    assert "column 'patient' is not read, but seems to say which images belong together" in capsys.readouterr().err
    assert main(["data", "study.yaml"]) == 2
    assert "column 'patient' is not read" in capsys.readouterr().err
