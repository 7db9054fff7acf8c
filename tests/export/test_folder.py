"""A picked student's folder is complete or absent, and its contents are consistent."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil

import numpy as np
import onnx
import pytest
import torch
import yaml

from kdsearch.config.task import square
from kdsearch.data.frame import Frame
from kdsearch.errors import ExportError, KdsearchError
from kdsearch.export.card import model_card
from kdsearch.export.checks import mean_dice, onnx_logits, require_same
from kdsearch.export.description import read_description
from kdsearch.export.folder import Form, find_shipped, load_weights
from kdsearch.export.onnx_graph import to_onnx, with_preprocessing
from kdsearch.files.onnx_runtime import session_of
from kdsearch.models.contract import normalize
from kdsearch.trials.recipe import Inherited
from tests.front.students import student
from tests.shipping import PLAIN, ship

NAMES = [
    "MODEL_CARD.md",
    "environment.txt",
    "model.int8.onnx",
    "model.onnx",
    "model.safetensors",
    "overlays.png",
    "predict.py",
    "seen.txt",
    "student.yaml",
]


@pytest.fixture
def validation(bench):
    return bench.materials.training_data(torch.device("cpu")).validation


def test_folder_contains_all_files_and_describes_them(shipped, validation):
    assert sorted(path.name for path in shipped.iterdir()) == NAMES
    assert [path.name for path in shipped.parent.iterdir()] == ["s-3"]
    found = read_description(shipped)
    assert (found.study, found.trial, found.recipe) == ("tiny", 3, student(3, 0.7, 10).recipe)
    for name in ("model.onnx", "model.int8.onnx", "model.safetensors"):
        assert found.files[name] == hashlib.sha256((shipped / name).read_bytes()).hexdigest()
    logits = onnx_logits((shipped / "model.onnx").read_bytes(), validation)
    assert found.onnx.dice == pytest.approx(mean_dice(logits, validation))
    assert found.onnx.largest_difference < 1e-4
    assert found.int8.drop == pytest.approx(found.onnx.dice - found.int8.dice)
    assert {(entry.runtime.split()[0], entry.threads) for entry in found.latency} >= {
        ("model.onnx,", 1),
        ("model.int8.onnx,", 1),
        ("torch", 1),
    }
    labels = {group.name for group in found.subgroups}
    assert labels <= {"label benign", "label malignant"}
    assert sum(group.images for group in found.subgroups) == int((validation.masks > 0).flatten(1).any(1).sum())


def test_model_takes_any_batch_size_and_contains_no_local_paths(shipped):
    session = session_of((shipped / "model.onnx").read_bytes(), name="m")
    for count in (1, 5):
        assert session.run(None, {"image": np.zeros((count, 1, 32, 32), np.float32)})[0].shape == (count, 1, 32, 32)
    for name in ("model.onnx", "model.int8.onnx"):
        content = (shipped / name).read_bytes()
        onnx.checker.check_model(onnx.load_from_string(content))
        assert b'.py"' not in content
        assert b"/site-packages" not in content
        assert b"kdsearch/" not in content


def test_card_states_the_facts(shipped):
    card = (shipped / "MODEL_CARD.md").read_text(encoding="utf-8")
    front_matter = yaml.safe_load(card.split("---")[1])
    assert front_matter["pipeline_tag"] == "image-segmentation"
    assert "Validation Dice 70.0 % ± 20.0" in card
    assert "By hand." in card
    assert "| all with foreground | 70.0 | 20.0 | 10 |" in card
    assert "phantom: simulated by kdsearch" in card
    assert "trained from random weights" in card
    for heading in ("Intended use", "Data", "Metrics", "Latency", "Limits", "How it was made", "How to run it"):
        assert f"## {heading}" in card
    assert not re.search(r"\bnan\b", card)
    assert not re.search("lesion|ultrasound|diagnos|probe", card)


def test_card_names_the_class_and_the_tags_of_the_study(shipped, bench):
    study = bench.study.model_copy(update={"tags": ("street-scenes",)})
    description = read_description(shipped).model_copy(update={"classes": ("road",)})
    description = description.model_copy(update={"input": description.input.model_copy(update={"whites": (4095.0,)})})
    card = model_card(description, study, teacher=bench.materials.teacher.scores)
    assert yaml.safe_load(card.split("---")[1])["tags"][:2] == ["street-scenes", "segmentation"]
    assert "Predicts the class road in grayscale images" in card
    assert "| all with road |" in card
    assert "Images of more than 8 bits must first be scaled so that 4095 becomes 255" in card


def test_card_says_where_an_inherited_student_s_weights_came_from(shipped, bench):
    found = read_description(shipped)
    inherited = found.recipe.model_copy(update={"start": Inherited(donor=2, scratch_epochs=30)})
    card = model_card(
        found.model_copy(update={"recipe": inherited}), bench.study, teacher=bench.materials.teacher.scores
    )
    assert "from weights inherited from the wider student of trial 2" in card
    assert "- start.scratch_epochs: 30" in card


def test_existing_folder_is_not_changed(bench, weights, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(KdsearchError, match="out exists already; remove it, or choose another folder with --out"):
        ship(bench, weights, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("content", "message"), [(None, "are not at"), (b"\xff" * 40, "not the weights of trial 3")])
def test_unusable_weights_are_reported_and_nothing_is_written(bench, tmp_path, content, message):
    weights = tmp_path / "w.safetensors"
    if content is not None:
        weights.write_bytes(content)
    with pytest.raises(KdsearchError, match=message):
        ship(bench, weights, tmp_path / "out" / "s-3")
    assert not (tmp_path / "out" / "s-3").exists()


STRICT = dataclasses.replace(PLAIN, int8_bound=-1.0)


@pytest.fixture(scope="module")
def strict(bench, weights, tmp_path_factory):
    """A student whose 8-bit file loses more than it may."""
    folder = tmp_path_factory.mktemp("strict") / "out"
    ship(bench, weights, folder, form=STRICT)
    return folder


def test_eight_bit_file_that_loses_too_much_carries_a_warning(strict):
    assert not read_description(strict).int8.within_bound
    notes = {entry.key: entry.value for entry in onnx.load(strict / "model.int8.onnx").metadata_props}
    assert "of Dice on the validation split, more than -1" in notes["kdsearch.warning"]
    assert "the file contains a warning" in (strict / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_unmeasured_latency_is_declared_and_not_accepted_as_measured(strict, weights):
    assert read_description(strict).latency == ()
    assert "Not measured when this student was picked" in (strict / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert _find(strict, weights, form=STRICT) == read_description(strict)
    with pytest.raises(KdsearchError, match="written with --no-latency"):
        _find(strict, weights, form=dataclasses.replace(STRICT, latency=True))


def test_preprocessing_in_the_graph_takes_raw_pixels_and_agrees(bench, weights, tmp_path):
    form = dataclasses.replace(PLAIN, preprocessing=True)
    description = ship(bench, weights, tmp_path / "out", form=form)
    assert description.onnx.preprocessing
    session = session_of((tmp_path / "out" / "model.onnx").read_bytes(), name="m")
    assert session.get_inputs()[0].type == "tensor(uint8)"
    pixels = np.zeros((2, 90, 70, 3), np.uint8)
    assert session.run(None, {"pixels": pixels})[0].shape == (2, 1, 32, 32)


def test_models_that_differ_are_refused(weights, validation):
    network = load_weights(student(3, 0.7, 10), weights, square(64))
    with torch.inference_mode():
        expected = network(normalize(validation.pixels))
    with pytest.raises(ExportError, match="does not compute the same as torch: logits differ by 0.1"):
        require_same(expected, expected + 0.1, validation)


@pytest.fixture(scope="module")
def exported(weights):
    """A student of 64 pixels as ONNX without preprocessing."""
    return to_onnx(load_weights(student(3, 0.7, 10), weights, square(64)), square(64))


def _image_of(content):
    """A session that returns the image after the graph's preprocessing."""
    model = onnx.load_from_string(content)
    resized = next(node for node in model.graph.node if node.op_type == "Resize")
    rounded = next(node for node in model.graph.node if node.op_type == "Round" and node.input[0] == resized.output[0])
    model.graph.output.append(onnx.helper.make_tensor_value_info(rounded.output[0], onnx.TensorProto.FLOAT, None))
    return session_of(model.SerializeToString(), name="m"), rounded.output[0]


@pytest.mark.parametrize("shape", [(90, 70), (200, 333), (64, 64), (40, 500), (31, 33), (481, 640)])
def test_graph_resizes_raw_images_like_pillow_including_borders(exported, shape):
    session, name = _image_of(with_preprocessing(exported, square(64)))
    gray = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    got = session.run([name], {"pixels": np.repeat(gray[None, :, :, None], 3, axis=3)})[0][0, 0]
    apart = np.abs(got - Frame(height=64, width=64).image(gray).astype(float))
    border = np.ones((64, 64), bool)
    border[2:-2, 2:-2] = False
    assert apart.max() <= 1
    assert apart[border].mean() < 0.3  # 1.6 with pixels outside the image


@pytest.mark.realdata
def test_preprocessing_in_the_graph_matches_pillow_except_in_a_few_pixels(exported, real_data):
    from PIL import Image

    from kdsearch.data.pixels import read_gray

    inside, outside = (
        session_of(content, name="m") for content in (with_preprocessing(exported, square(64)), exported)
    )
    paths = sorted((real_data / "busi" / "Dataset_BUSI_with_GT" / "malignant").glob("malignant (?).png"))
    assert paths
    for path in paths:
        colors = np.asarray(Image.open(path).convert("RGB"))
        small = Frame(height=64, width=64).image(read_gray(path))
        expected = outside.run(None, {"image": normalize(torch.from_numpy(small.copy())[None]).numpy()})[0]
        got = inside.run(None, {"pixels": colors[None]})[0]
        assert ((got > 0) != (expected > 0)).mean() < 0.005


def _find(folder, weights, *, number=3, form=PLAIN):
    return find_shipped(folder, student(number, 0.7, 10), weights=weights, form=form)


def test_the_same_student_in_the_same_form_is_recognized(shipped, weights, tmp_path):
    assert _find(shipped, weights) == read_description(shipped)
    assert _find(tmp_path / "absent", weights) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"number": 4},
            r"exists already \(it contains trial 3 of study tiny, with other weights\); remove it, or choose",
        ),
        ({"form": Form(preprocessing=True, int8_bound=1.0)}, "written without --with-preprocessing"),
        ({"form": Form(preprocessing=False, int8_bound=0.5)}, "written with --int8-bound 1"),
    ],
)
def test_existing_folder_with_another_student_or_form_is_refused(shipped, weights, changes, message):
    with pytest.raises(KdsearchError, match=message):
        _find(shipped, weights, **changes)


def test_folder_that_was_tampered_with_is_refused(shipped, weights, tmp_path):
    folder = tmp_path / "student"
    shutil.copytree(shipped, folder)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(KdsearchError, match=r"exists already \(.*not the file that student.yaml describes"):
        _find(folder, weights)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other weights")
    with pytest.raises(KdsearchError, match="with other weights"):
        _find(shipped, other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(KdsearchError, match=r"exists already \(.*contains no student.yaml"):
        _find(tmp_path / "empty", weights)
