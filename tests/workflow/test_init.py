"""A folder of images becomes a study file that fits them and the machine."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from kdsearch.cli.main import USER_ERROR, main
from kdsearch.config.load import load_study
from kdsearch.data.phantom import simulate
from kdsearch.errors import DataError, StudyFileError
from kdsearch.workflow.init import inspect
from kdsearch.workflow.new_study import Plan, name_of, propose_size, write_study
from kdsearch.workflow.rehearsal import EPOCHS, TRIALS, Pace, fit
from tests.data.annotated import write_coco
from tests.data.pictures import write_image, write_mask
from tests.data.test_nnunet import write_nnunet

PACE = Pace(reading_s=0.01, teacher_s=0.01, student_s=0.002, trial_s=1.0, start_s=20.0, workers=2)


def _write(root, names, *, box=(10, 10, 30, 30)):
    for seed, name in enumerate(names):
        folder, _, stem = name.rpartition("/")
        write_image(root / folder / "images" / f"{stem}.png", seed=seed)
        write_mask(root / folder / "masks" / f"{stem}.png", box=box)
    return root


def _plan(found, **settings):
    return Plan(**{"name": "a", "found": found, "size": 64, "class_names": ("object",)} | settings)


def test_folder_is_described_in_a_table(tmp_path):
    _write(tmp_path / "set", [f"{kind}/{n}" for kind in ("benign", "malignant") for n in range(4)])
    write_mask(tmp_path / "set" / "benign" / "masks" / "0.png", box=None)
    rows = dict(inspect(tmp_path / "set", tmp_path / "home").rows())
    assert rows["reader"] == "folder"
    assert rows["images"] == "8, of which 1 are negative"
    assert rows["pixels"] == "50 × 40"
    assert rows["labels"] == "benign 4, malignant 4"
    assert rows["groups"].startswith("not named; ")
    assert rows["left out"] == "nothing"


def test_groups_and_split_are_taken_from_folders(tmp_path):
    _write(tmp_path / "set", [f"{'test' if n < 4 else 'train'}/patient{n}/1" for n in range(8)])
    rows = dict(inspect(tmp_path / "set", tmp_path / "home").rows())
    assert (rows["groups"], rows["split"]) == ("8, named by folders", "test 4, train 4")


@pytest.mark.parametrize("blurred", [3, 8], ids=["some", "all"])
def test_blurred_masks_get_a_threshold(tmp_path, blurred):
    _write(tmp_path / "set", [str(n) for n in range(8)])
    for number in range(blurred):
        path = tmp_path / "set" / "masks" / f"{number}.png"
        Image.open(path).resize((100, 80), Image.Resampling.BICUBIC).save(path)
    found = inspect(tmp_path / "set", tmp_path / "home")
    assert found.source.threshold == 128
    assert len(found.looks) == 8
    assert load_study({"name": "a", **_data(_plan(found), tmp_path)}).data.sources[0].threshold == 128


def test_masks_of_class_numbers_become_classes(tmp_path):
    _write(tmp_path / "set", [str(n) for n in range(8)])
    for number in range(8):
        path = tmp_path / "set" / "masks" / f"{number}.png"
        pixels = (np.asarray(Image.open(path)) > 0).astype(np.uint8) * (1 + number % 2)
        pixels[0, :2] = 7, 255
        Image.fromarray(pixels).save(path)
    found = inspect(tmp_path / "set", tmp_path / "home")
    rows = dict(found.rows())
    assert rows["masks"] == "class numbers 0, 1, 2, 7; 0 is the background; 255 does not count"
    assert rows["classes"].startswith("1 in 4 images, 20.0 % of their pixels; 2 in 4 images, ")
    names = ("lesion", "cyst", "a b")
    study = load_study({"name": "a", **_data(_plan(found, class_names=names), tmp_path)})
    assert study.data.classes == {"background": (0,), "lesion": (1,), "cyst": (2,), "a b": (7,)}
    assert study.data.ignore == 255
    with pytest.raises(StudyFileError, match="the masks have the classes 1, 2, 7, but 2 names are given: a, b; give"):
        found.named(("a", "b"))
    study = load_study({"name": "a", **_data(_plan(found, class_names=("road",)), tmp_path)})
    assert study.data.classes == {"background": (0,), "road": (1, 2, 7)}
    assert len(found.looks) == 8


def test_colors_are_kept_if_most_images_have_some(tmp_path):
    _write(tmp_path / "set", [str(n) for n in range(8)])
    for number in range(6):
        path = tmp_path / "set" / "images" / f"{number}.png"
        gray = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(np.dstack([gray, gray // 2, 255 - gray])).save(path)
    found = inspect(tmp_path / "set", tmp_path / "home")
    assert dict(found.rows())["colors"] == "75% of the images are colored; kept"
    assert _data(_plan(found), tmp_path)["data"]["channels"] == 3


def _data(plan, tmp_path):
    file = tmp_path / "made.yaml"
    file.write_text(plan.text(), encoding="utf-8")
    return {"data": load_study(file).data.model_dump(mode="json", by_alias=True)}


def test_published_data_set_is_recognized(tmp_path):
    for label in ("benign", "malignant", "normal"):
        write_image(tmp_path / label / f"{label} (1).png")
        write_mask(tmp_path / label / f"{label} (1)_mask.png")
    assert inspect(tmp_path, tmp_path / "home").source.reader == "busi"


def test_missing_folder_or_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a folder; name the folder of your images"):
        inspect(tmp_path / "absent", tmp_path / "home")
    write_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="has 1 image and no masks; put images into images/"):
        inspect(tmp_path, tmp_path / "home")


@pytest.mark.parametrize("name", ["my data", "Größe", 'a"b', "a: b #c", "$HOME", "a\\b", "1e3", "true"])
def test_study_file_is_valid_for_any_folder_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / name, [str(n) for n in range(4)])
    found = inspect(tmp_path / name, tmp_path / "home")
    write_study(_plan(found, name=name_of(tmp_path / name)), tmp_path / "s.yaml", seconds=9)
    again = load_study(tmp_path / "s.yaml")
    assert again.data.sources[0].folder.replace("$$", "$") == str(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((40, 50), 64), ((45, 80), (64, 96)), ((80, 40), (96, 32)), ((30, 300), (32, 192))],
)
def test_shape_of_images_far_from_square_is_kept(tmp_path, shape, size):
    for index in range(3):
        write_image(tmp_path / "set" / "images" / f"{index}.png", shape=shape, seed=index)
        write_mask(tmp_path / "set" / "masks" / f"{index}.png", shape=shape, box=(5, 5, 25, 25))
    found = inspect(tmp_path / "set", tmp_path / "home")
    assert propose_size(found) == size
    write_study(_plan(found, size=size), tmp_path / "a.yaml", seconds=60)
    assert load_study(tmp_path / "a.yaml").data.shape == (size if isinstance(size, tuple) else (size, size))


@pytest.mark.parametrize(("side", "size"), [(2, 256), (8, 64), (3, 192)])
def test_proposed_size_keeps_small_objects(tmp_path, side, size):
    for number in range(4):
        write_image(tmp_path / "set" / "images" / f"{number}.png", shape=(256, 256), seed=number)
        mask = np.zeros((256, 256), dtype=np.uint8)
        mask[20 : 20 + 4 * side, 20 : 20 + 4 * side] = 255
        (tmp_path / "set" / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"{number}.png")
    assert propose_size(inspect(tmp_path / "set", tmp_path / "home")) == size


def test_study_is_fitted_to_the_time_budget(tmp_path):
    plan = _plan(inspect(_write(tmp_path / "set", [str(n) for n in range(40)]), tmp_path / "home"))
    estimates = []
    for minutes in (5, 20, 60):
        fitted, seconds = fit(plan, PACE, minutes=minutes)
        assert seconds <= 60 * minutes
        assert EPOCHS[0] <= fitted.epochs <= EPOCHS[1]
        assert TRIALS[0] <= fitted.trials <= TRIALS[1]
        estimates.append(seconds)
    assert estimates == sorted(estimates)


def test_time_budget_that_is_too_short_gives_the_smallest_study(tmp_path):
    plan = _plan(inspect(_write(tmp_path / "set", [str(n) for n in range(8)]), tmp_path / "home"))
    fitted, seconds = fit(
        plan, Pace(reading_s=0.01, teacher_s=9, student_s=9, trial_s=1, start_s=9, workers=2), minutes=1
    )
    assert (fitted.epochs, fitted.trials) == (EPOCHS[0], TRIALS[0])
    assert seconds > 60


def test_existing_study_file_is_never_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = inspect(_write(tmp_path / "set", [str(n) for n in range(4)]), tmp_path / "home")
    (tmp_path / "s.yaml").write_text("mine")
    with pytest.raises(StudyFileError, match="s.yaml: exists already; name another file with --out"):
        write_study(_plan(found), tmp_path / "s.yaml", seconds=1)
    assert main(["init", "set", "--out", "s.yaml"]) == USER_ERROR
    assert (tmp_path / "s.yaml").read_text() == "mine"
    assert "exists already" in capsys.readouterr().err


def test_folder_of_empty_masks_is_refused(tmp_path):
    _write(tmp_path / "set", [str(n) for n in range(4)], box=None)
    with pytest.raises(DataError, match="none of the 4 masks shows an object; are these files masks"):
        inspect(tmp_path / "set", tmp_path / "home")


@pytest.mark.slow
def test_init_writes_a_study_for_this_machine_and_it_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for index in range(24):
        phantom = simulate(index, seed=0)
        for kind, pixels in (("images", phantom.image), ("masks", phantom.mask)):
            (tmp_path / "my scans" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((96, 96), Image.Resampling.NEAREST).save(f"my scans/{kind}/{index:02d}.png")
    assert main(["init", "my scans", "--minutes", "2", "--class-name", "lesion", "--size", "32", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "Wrote studies/my-scans.yaml" in said
    assert re.search(r"The search takes about \d+ minutes here", said)
    study = load_study(tmp_path / "studies" / "my-scans.yaml")
    assert (study.data.class_name, study.data.size) == ("lesion", 32)
    short = ["training.epochs=1", "teacher.training.epochs=1", "search.trials=2"]
    assert main(["run", "studies/my-scans.yaml", *short]) == 0
    assert not list(tmp_path.glob("**/kdsearch-init-*"))


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["coco", "nnunet"])
def test_init_of_a_data_set_with_several_classes_writes_a_study_that_runs(tmp_path, monkeypatch, capsys, reader):
    monkeypatch.chdir(tmp_path)
    if reader == "nnunet":
        write_nnunet(tmp_path / "set", cases=24, test=0)
    else:
        (tmp_path / "set").mkdir()
        write_coco(tmp_path / "set", names=[f"image {index}" for index in range(24)])
    assert main(["init", "set", "--minutes", "1", "--size", "32", "--yes"]) == 0
    assert "class numbers 0, 1, 2; 0 is the background" in capsys.readouterr().out
    data = load_study(tmp_path / "studies" / "set.yaml").data
    assert (data.sources[0].reader, set(data.foreground)) == (reader, {"lesion", "cyst"})
    assert data.ignore == (3 if reader == "nnunet" else None)
    assert main(["run", "studies/set.yaml", "training.epochs=1", "teacher.training.epochs=1", "search.trials=2"]) == 0
