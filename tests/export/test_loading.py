"""Loading a folder as a function, and refusing hostile folders."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import helper
from PIL import Image
from safetensors.torch import save_file

import kdsearch
from kdsearch.errors import DataError, ModelError
from kdsearch.export.description import seal_of
from kdsearch.export.seen import read_seen
from kdsearch.export.timing import time_folder
from kdsearch.models.students import build_student
from tests.front.students import student


@pytest.fixture
def folder(shipped, tmp_path):
    return shutil.copytree(shipped, tmp_path / "copy")


@pytest.fixture
def picture(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    image = Image.fromarray(values).resize((130, 90), Image.Resampling.BICUBIC)
    image.save(tmp_path / "picture.png")
    return image


@pytest.mark.parametrize("runtime", ["onnx", "int8", "torch"])
def test_mask_has_the_image_s_size_for_every_kind_of_input(shipped, picture, tmp_path, runtime):
    loaded = kdsearch.load_student(shipped, runtime=runtime)
    masks = [
        loaded(image)
        for image in (tmp_path / "picture.png", str(tmp_path / "picture.png"), picture, np.asarray(picture))
    ]
    assert masks[0].shape == (90, 130)
    assert masks[0].dtype == bool
    assert all((mask == masks[0]).all() for mask in masks)
    assert ((loaded.probabilities(picture) > 0.5) == masks[0]).all()


def test_onnx_and_torch_agree(shipped, picture):
    onnx_logits, torch_logits = (
        kdsearch.load_student(shipped, runtime=name).logits(picture) for name in ("onnx", "torch")
    )
    assert np.abs(onnx_logits - torch_logits).max() < 1e-4


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("absent.png", "absent.png: no such file"),
        (np.zeros((4, 4), np.float32), "got float32 of shape"),
        (np.zeros((4, 4, 2), np.uint8), "must be 3 or 4 color channels"),
        (np.zeros((0, 4), np.uint8), "got uint8 of shape"),
        (7, "got int"),
    ],
)
def test_files_that_are_not_images_are_reported(shipped, image, message):
    with pytest.raises(DataError, match=message):
        kdsearch.load_student(shipped)(image)


def test_changed_file_is_refused(folder):
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"model\.onnx: not the file that student.yaml describes"):
        kdsearch.load_student(folder)


@pytest.mark.parametrize(("before", "after"), [("mean: 0.449", "mean: 0.1"), ("size: 32", "size: 64")])
def test_edited_description_is_refused(folder, before, after):
    path = folder / "student.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ModelError, match=r"student\.yaml: was changed after kdsearch pick wrote it"):
        kdsearch.load_student(folder, runtime="torch")


def test_non_finite_predictions_are_refused(folder, picture):
    _replace(folder, "model.onnx", _identity(1, 1, 32, 32, operator="Log"))
    with pytest.raises(ModelError, match=r"model\.onnx: predicted values that are not finite"):
        kdsearch.load_student(folder)(picture)


def test_emptied_list_of_seen_images_is_refused(folder):
    description = kdsearch.load_student(folder).description
    assert len(read_seen(folder, description).learnt.digests) == 31
    (folder / "seen.txt").write_text("")
    with pytest.raises(ModelError, match=r"seen\.txt: not the file that student.yaml describes"):
        read_seen(folder, description)


def test_folder_with_a_binary_description_is_not_timed(folder):
    (folder / "student.yaml").write_bytes(b"\xff\xfe" * 100)
    with pytest.raises(ModelError, match="not the file that student.yaml describes"):
        time_folder(folder)


def test_replaced_model_is_not_timed(folder):
    shutil.copy(folder / "model.onnx", folder / "model.int8.onnx")
    with pytest.raises(ModelError, match=r"model\.int8\.onnx: not the file that student.yaml describes"):
        time_folder(folder)


def test_folder_without_a_student_is_reported(tmp_path):
    with pytest.raises(ModelError, match=r"contains no student\.yaml; give a folder that kdsearch pick wrote"):
        kdsearch.load_student(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "student.yaml: written by a newer release of kdsearch"),
        ({"schema": "one"}, "schema: must be a whole number, got 'one'"),
        ({"recipe": {"distillation": "x"}}, "recipe.distillation: "),
        ({"recipe": {"student": 3}}, "recipe.student: "),
        ({"recipe": {"schema": 0, "distillation": {"path": "logits"}}}, "recipe.distillation"),
        ({"recipe": {"schema": 99}}, "recipe: written by a newer release"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"input": {"size": 10**9}}, "input.size: Input should be less than or equal to 4096"),
        ({"recipe": {"student": {"width": 10**9}}}, "recipe.student.width: Input should be less than or equal to 256"),
        ({"recipe": {"student": {"depth": 10**9}}}, "recipe.student.depth: Input should be less than or equal to 6"),
        ({"files": {"../../etc/passwd": "a"}}, "no such file|not the file"),
    ],
)
def test_hostile_description_is_refused(folder, change, message):
    _change(folder, change)
    with pytest.raises(ModelError, match=message):
        kdsearch.load_student(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: !!python/object/apply:os.system [true]", "tag"),
        (
            "c0: &c0 [x, x]\n" + "".join(f"c{i + 1}: &c{i + 1} [*c{i}, *c{i}]\n" for i in range(30)),
            "anchors",
        ),
        ("[" * 100_000, "not valid YAML|mapping"),
        ("x: 1\n" * 300_000, "bytes; a student's description has at most 1,000,000"),
    ],
    ids=["code", "anchors", "nesting", "long"],
)
def test_hostile_yaml_is_refused(folder, text, message):
    (folder / "student.yaml").write_text(text)
    with pytest.raises(ModelError, match=message):
        kdsearch.load_student(folder)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 10**9) + b"{" * 100,
        struct.pack("<Q", 64)
        + json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}).encode().ljust(64),
        b"",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    ],
    ids=["huge header", "broken header", "lying offsets", "empty", "pickle"],
)
def test_hostile_weights_are_refused(folder, content):
    _replace(folder, "model.safetensors", content)
    with pytest.raises(ModelError, match=r"model\.safetensors: not a safetensors file"):
        kdsearch.load_student(folder, runtime="torch")


def test_weights_of_other_shapes_are_refused(folder, tmp_path):
    other = build_student(student(0, 0.1, 1).recipe.student.model_copy(update={"width": 4}))
    save_file({name: tensor.contiguous() for name, tensor in other.state_dict().items()}, tmp_path / "other")
    _replace(folder, "model.safetensors", (tmp_path / "other").read_bytes())
    with pytest.raises(ModelError, match=r"decoder.*has shape \[.*\], but the network in student.yaml has \["):
        kdsearch.load_student(folder, runtime="torch")


def test_weights_with_other_tensors_are_refused(folder, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    _replace(folder, "model.safetensors", (tmp_path / "other").read_bytes())
    with pytest.raises(ModelError, match="has shape"):
        kdsearch.load_student(folder, runtime="torch")


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"\x80\x04cos\nsystem\n(S'true'\ntR."])
def test_file_that_is_not_a_model_is_refused(folder, content):
    _replace(folder, "model.onnx", content)
    with pytest.raises(ModelError, match=r"model\.onnx: not a model that ONNX Runtime can open"):
        kdsearch.load_student(folder)
    with pytest.raises(ModelError, match=r"model\.onnx: not a model that ONNX Runtime can open"):
        time_folder(folder)


def test_model_that_names_a_file_outside_is_refused(folder, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(4 * 32 * 32))
    _replace(folder, "model.onnx", _external("../secret"))
    with pytest.raises(ModelError, match=r"model\.onnx: not a model that ONNX Runtime can open"):
        kdsearch.load_student(folder)


def test_model_of_another_size_is_refused(folder, picture):
    _replace(folder, "model.onnx", _identity(1, 1, 16, 16))
    loaded = kdsearch.load_student(folder)
    with pytest.raises(ModelError, match=r"cannot be run|expected 1×C×32×32"):
        loaded(picture)


def test_model_without_an_input_is_refused(folder):
    value = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1])
    node = helper.make_node("Constant", [], ["logits"], value_floats=[1.0])
    model = helper.make_model(
        helper.make_graph([node], "g", [], [value]), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    _replace(folder, "model.onnx", model.SerializeToString())
    for use in (kdsearch.load_student, time_folder):
        with pytest.raises(ModelError, match="must have one tensor as input and one as output"):
            use(folder)


def test_model_without_a_size_has_no_latency(folder):
    _replace(folder, "model.onnx", _identity("n", "c", "h", "w"))
    with pytest.raises(ModelError, match="no fixed height and width"):
        time_folder(folder)


def test_folder_without_models_has_no_latency(tmp_path):
    with pytest.raises(ModelError, match=r"contains neither model\.onnx nor model\.int8\.onnx"):
        time_folder(tmp_path)


def _change(folder, change):
    path = folder / "student.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))

    def merge(into, values):
        for key, value in values.items():
            if isinstance(value, dict) and key != "files":
                merge(into[key], value)
            else:
                into[key] = value

    merge(content, change)
    content["seal"] = seal_of({key: value for key, value in content.items() if key != "seal"})
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def _replace(folder, name, content):
    """Replaces a file, updates its digest in the description and seals it again, as an attacker would."""
    (folder / name).write_bytes(content)
    digests = yaml.safe_load((folder / "student.yaml").read_text(encoding="utf-8"))["files"]
    _change(folder, {"files": digests | {name: hashlib.sha256(content).hexdigest()}})


def _identity(*shape, operator="Identity"):
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node(operator, ["image"], ["logits"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString()


def _external(place):
    """A model with one tensor in another file."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1, 1, 32, 32])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    value = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, 32, 32]) for name in ("image", "logits")
    ]
    graph = helper.make_graph(
        [helper.make_node("Add", ["image", "w"], ["logits"])], "g", value[:1], value[1:], [tensor]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
