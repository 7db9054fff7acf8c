"""nnU-Net's raw layout."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.nnunet import read_labels, read_nnunet
from kdsearch.data.splits import split
from kdsearch.errors import DataError
from kdsearch.workflow.init import inspect
from tests.data.pictures import write_image

LABELS = {"background": 0, "lesion": 1, "cyst": 2, "ignore": 3}


def write_nnunet(root, *, cases=8, test=2, colors=False, **changes):
    """A data set of three classes, with an ignored row."""
    for part, count in (("Tr", cases), ("Ts", test)):
        (root / f"labels{part}").mkdir(parents=True)
        for index in range(count):
            case = f"case{part}_{index:03d}"
            write_image(root / f"images{part}" / f"{case}_0000.png", seed=index, mode="RGB" if colors else "L")
            mask = np.zeros((40, 50), np.uint8)
            mask[5:20, 5:20], mask[20:30, 20:40], mask[38:] = 1, 2, 3
            Image.fromarray(mask).save(root / f"labels{part}" / f"{case}.png")
    names = {"0": "R", "1": "G", "2": "B"} if colors else {"0": "ultrasound"}
    content = {"channel_names": names, "labels": LABELS, "numTraining": cases, "file_ending": ".png", **changes}
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def _config(root, **data):
    usual = {"classes": ["background", "lesion", "cyst"], "ignore": 3}
    sources = [{"reader": "nnunet", "folder": str(root)}]
    return DataConfig.model_validate_json(json.dumps({"sources": sources, "size": 32, **usual, **data}))


def test_images_labels_and_test_images_are_read(tmp_path):
    root = write_nnunet(tmp_path / "Dataset001_Breast")
    dataset = load_dataset(_config(root), tmp_path / "home")
    assert (dataset.classes, dataset.ignores) == (("lesion", "cyst"), True)
    assert set(np.unique(dataset.masks)) == {0, 1, 2, 255}
    parts = {info.id: info.part for info in dataset.infos}
    assert parts["nnunet/caseTs_001"] == "test"
    assert parts["nnunet/caseTr_001"] is None


@pytest.mark.parametrize("place", ["Dataset001_Breast", "../nnUNet_preprocessed/Dataset001_Breast"])
def test_fold_of_the_final_splits_is_used(tmp_path, place):
    root = write_nnunet(tmp_path / "nnUNet_raw" / "Dataset001_Breast")
    cases = [f"caseTr_{index:03d}" for index in range(8)]
    folds = [{"train": cases[2:], "val": cases[:2]}, {"train": cases[:6], "val": cases[6:]}]
    path = tmp_path / "nnUNet_raw" / place / "splits_final.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(folds), encoding="utf-8")
    for fold, wanted in enumerate((cases[:2], cases[6:])):
        config = _config(root)
        source = config.sources[0].model_copy(update={"fold": fold})
        config = config.model_copy(update={"sources": (source,)})
        dataset = load_dataset(config, tmp_path / "home")
        splits = split(dataset, config.split, train_on_negatives=False)
        assert [dataset.infos[place].id for place in splits.validation] == [f"nnunet/{case}" for case in wanted]
        assert len(splits.test) == 2
    with pytest.raises(DataError, match="has 2 folds, so fold must be below that; got 5"):
        read_nnunet(root, fold=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"file_ending": ".nii.gz"},
            "file_ending '.nii.gz': kdsearch reads images, not volumes; save the slices as PNG",
        ),
        ({"channel_names": {"0": "T1", "1": "T2"}}, "channels t1, t2: kdsearch reads gray images and red, green"),
        ({"labels": {"background": 0, "whole": [1, 2], "core": [2]}}, "regions that overlap cannot be read"),
        ({"labels": 3}, "must have labels and channel_names"),
    ],
)
def test_data_set_that_kdsearch_cannot_read_is_refused_with_a_remedy(tmp_path, changes, message):
    root = write_nnunet(tmp_path / "set", cases=1, test=0, **changes)
    with pytest.raises(DataError, match=message):
        load_dataset(_config(root), tmp_path / "home")


def test_other_classes_are_refused_with_the_line_towrite_nnunet(tmp_path):
    root = write_nnunet(tmp_path / "set")
    with pytest.raises(
        DataError, match=r'classes: {"background": 0, "lesion": 1, "cyst": 2}, ignore: 3; or leave some'
    ):
        load_dataset(_config(root, classes=["background", "cyst", "lesion"]), tmp_path / "home")
    only = _config(root, classes={"background": [0], "cyst": [2]}, other_values="background", ignore=None)
    assert load_dataset(only, tmp_path / "home").classes == ()


def test_label_without_an_image_and_image_without_a_label_are_defects(tmp_path):
    root = write_nnunet(tmp_path / "set")
    (root / "imagesTr" / "caseTr_000_0000.png").unlink()
    (root / "labelsTr" / "caseTr_001.png").unlink()
    problems = sorted(str(defect).rpartition("/")[2] for defect in read_nnunet(root).defects)
    assert problems == ["caseTr_000.png: has no image", "caseTr_001.png)"]


def test_broken_description_is_named(tmp_path):
    root = write_nnunet(tmp_path / "set", cases=1, test=0)
    (root / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"dataset.json: cannot be read as JSON"):
        read_labels(root)


@pytest.mark.parametrize("colors", [False, True])
def test_init_takes_classes_from_the_description(tmp_path, colors):
    found = inspect(write_nnunet(tmp_path / "set", colors=colors), tmp_path / "home")
    assert found.source.reader == "nnunet"
    assert (found.numbers, found.void, found.names) == ((0, 1, 2), 3, ("lesion", "cyst"))
    assert read_labels(tmp_path / "set").channels == (3 if colors else 1)
