"""Annotation files: one contract for all formats, then what only one of them has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kdsearch.config.data import DataConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.native import native_images
from kdsearch.data.shapes import Shape, outline_of, runs_in
from kdsearch.data.source import ANNOTATED
from kdsearch.errors import DataError
from kdsearch.workflow.init import inspect
from tests.data.annotated import CYST, LESION, NAMES, RUNS, SHAPE, WRITERS, wanted


@pytest.fixture(params=ANNOTATED)
def annotated(request, tmp_path):
    """A reader's name, and a folder in its format."""
    (tmp_path / "set").mkdir()
    WRITERS[request.param](tmp_path / "set")
    return request.param, tmp_path / "set"


def _config(reader, folder, **data):
    data = {"classes": ["background", "lesion", "cyst"], **data}
    sources = [{"reader": reader, "folder": str(folder)}]
    return DataConfig.model_validate_json(json.dumps({"sources": sources, "size": 32, **data}))


def _masks(config):
    listing = ANNOTATED[config.sources[0].reader][0]
    ids = {f"{config.sources[0].reader}/{entry.id}" for entry in listing(Path(config.sources[0].folder)).entries}
    return {image.id.rpartition("/")[2]: image.mask for image in native_images(config, ids)}


def test_masks_are_drawn_pixel_by_pixel(annotated):
    found = _masks(_config(*annotated))
    assert set(found) == set(NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(found[name], wanted(name), err_msg=name)


def test_data_set_is_cached_by_the_content_of_its_annotations(annotated, tmp_path):
    reader, folder = annotated
    first = load_dataset(_config(*annotated), tmp_path / "home")
    assert (first.classes, first.has_foreground.sum()) == (("lesion", "cyst"), 2)
    assert load_dataset(_config(*annotated), tmp_path / "home").fingerprint == first.fingerprint
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".txt", ".xml"):
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace("30", "31", 1).replace("0.600000", "0.620000", 1), encoding="utf-8")
    if reader == "coco":
        return  # its first 30 is the width of a run, so that the file is refused
    assert load_dataset(_config(reader, folder), tmp_path / "home").fingerprint != first.fingerprint


def test_class_that_the_study_does_not_name_is_a_defect(annotated, tmp_path):
    config = _config(*annotated, classes=["background", "lesion"])
    with pytest.raises(DataError, match="has the class 'cyst', which data.classes does not have; add it"):
        load_dataset(config, tmp_path / "home")
    only = _config(*annotated, classes=["background", "lesion"], other_values="background")
    found = _masks(only)["a b"]
    assert set(np.unique(found)) == {0, 1}


def test_several_classes_need_names(annotated, tmp_path):
    config = _config(*annotated, classes=None)
    with pytest.raises(DataError, match=r"several classes; write classes: \[background, cyst, lesion\], or give"):
        load_dataset(config, tmp_path / "home")


def test_class_may_have_another_name_in_a_source(annotated, tmp_path):
    config = _config(*annotated, classes=None)
    source = config.sources[0].model_copy(update={"map": {"cyst": "lesion"}})
    config = config.model_copy(update={"sources": (source,)})
    assert set(np.unique(load_dataset(config, tmp_path / "home").masks)) == {0, 1}
    wrong = source.model_copy(update={"map": {"cist": "lesion"}})
    with pytest.raises(DataError, match="map: no object has the class 'cist'; did you mean 'cyst'"):
        load_dataset(config.model_copy(update={"sources": (wrong,)}), tmp_path / "home")


def test_missing_image_is_a_defect_and_missing_annotations_an_error(annotated, tmp_path):
    reader, folder = annotated
    if reader != "yolo":  # which lists no images
        next(folder.rglob("a b.png")).unlink()
        with pytest.raises(DataError, match="does not exist"):
            load_dataset(_config(reader, folder), tmp_path / "home")
    for path in [*folder.rglob("*.json"), *folder.rglob("*.xml"), *folder.rglob("*.yaml")]:
        path.unlink()
    with pytest.raises(DataError, match=r"has no |cannot be read as XML"):
        load_dataset(_config(reader, folder), tmp_path / "home")


def test_broken_annotations_are_named(annotated, tmp_path):
    reader, folder = annotated
    path = next(path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".xml", ".yaml"))
    path.write_bytes(b"{")
    with pytest.raises(DataError, match="cannot be read as|has no JSON file with images"):
        load_dataset(_config(reader, folder), tmp_path / "home")


def test_annotations_of_another_size_are_refused(annotated, tmp_path):
    reader, folder = annotated
    if reader == "yolo":
        return  # its points are relative
    for path in [*folder.rglob("*.json"), *folder.rglob("*.xml")]:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"imageWidth": 50', '"imageWidth": 51').replace('"width": 50', '"width": 51')
                        .replace('width="50"', 'width="51"'), encoding="utf-8")  # fmt: skip
    with pytest.raises(DataError, match="its annotations are for 51×40 pixels, but it has 50×40"):
        load_dataset(_config(reader, folder), tmp_path / "home")


def test_init_recognizes_the_format_and_its_classes(annotated, tmp_path):
    reader, folder = annotated
    found = inspect(folder, tmp_path / "home")
    assert found.source.reader == reader
    assert set(found.names) == {"lesion", "cyst"}
    assert len(found.looks) == 3


def test_compressed_run_lengths_equal_pycocotools():
    canvas = np.zeros(SHAPE, np.uint8)
    Shape(name="a", runs=runs_in(RUNS), box=(0, 0, SHAPE[1], SHAPE[0])).draw(canvas, 1)
    expected = np.zeros(SHAPE, np.uint8)
    expected[5:20, 5:30] = expected[12:30, 20:45] = expected[0, 0] = 1
    np.testing.assert_array_equal(canvas, expected)
    with pytest.raises(ValueError, match="is no part of run lengths"):
        runs_in("é")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 2, 3, 4], "needs at least three points, with x and y each; got 4 numbers"),
        ([1, 2, 3, 4, 5, 6, 7], "got 7 numbers"),
        ([1, 2, 3, 4, 5, "x"], "must be numbers"),
        ([1, 2, 3, 4, 5, float("nan")], "must be finite numbers"),
    ],
)
def test_outline_that_is_no_polygon_is_refused(numbers, message):
    with pytest.raises(DataError, match=message):
        outline_of(numbers, what="annotation 3")


def test_self_crossing_outline_and_one_outside_the_image_are_drawn():
    canvas = np.zeros((20, 20), np.uint8)
    Shape(name="a", outlines=(((0, 0), (20, 20), (20, 0), (0, 20)),)).draw(canvas, 1)
    assert 0.4 < canvas.mean() < 0.6
    Shape(name="a", outlines=(((-50, -50), (70, -50), (70, 70), (-50, 70)),)).draw(canvas, 2)
    assert (canvas == 2).all()
    Shape(name="a", outlines=(((0, 0), (1e9, 0), (1e9, 1e9), (0, 1e9)),)).draw(canvas, 3)
    assert (canvas == 3).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.update(category_id=99), "annotation 1 has the category_id 99, which the file does not list"),
        (lambda one: one.update(segmentation=[]), "annotation 1 has no segmentation, only a box"),
        (lambda one: one.update(segmentation=[[1, 2, 3, 4]]), "annotation 1: an outline needs at least three points"),
        (lambda one: one.update(segmentation={"size": [40, 50], "counts": "é"}), "its run lengths cannot be read"),
        (lambda one: one.update(segmentation={"size": [40, 50], "counts": [5, 5]}), "cover 10 pixels of 50×40"),
        (lambda one: one.update(segmentation={"size": [40, 50], "counts": [10**15, 5]}), "pixels of 50×40"),
        (lambda one: one.update(segmentation={"size": [40, 50], "counts": [3000, -1000]}), "pixels of 50×40"),
        (lambda one: one.update(segmentation={"size": [400, 500], "counts": [0, 200000]}), "pixels of 500×400"),
        (lambda one: one.update(image_id=99), "annotations of images that it does not list, such as image_id 99"),
        (lambda one: one.pop("image_id"), "lacks the key 'image_id'"),
    ],
)
def test_coco_annotation_that_cannot_be_drawn_is_named(tmp_path, change, message):
    WRITERS["coco"](tmp_path)
    path = tmp_path / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    change(content["annotations"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        load_dataset(_config("coco", tmp_path), tmp_path / "home")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("9 0.1 0.1 0.2 0.1 0.2 0.2", "line 1: class '9' is not in the names"),
        ("0 0.5 0.5 0.2 0.2", "line 1: describes a box; kdsearch needs outlines"),
        ("0 0.1 0.1 x 0.1 0.2 0.2", "line 1: the points of an outline must be numbers"),
    ],
)
def test_yolo_line_that_cannot_be_drawn_is_named(tmp_path, line, message):
    WRITERS["yolo"](tmp_path)
    (tmp_path / "labels" / "train" / "a b.txt").write_text(line)
    with pytest.raises(DataError, match=message):
        load_dataset(_config("yolo", tmp_path), tmp_path / "home")


def test_boxes_overlap_in_the_order_of_the_file():
    assert LESION[2] > CYST[0]
    assert LESION[3] > CYST[1]
    assert wanted("a b")[16, 25] == 2
