"""Teachers trained elsewhere meet the contract, or an error says what does not fit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from kdsearch.config.networks import OnnxTeacher
from kdsearch.config.task import Task, square
from kdsearch.errors import TeacherError
from kdsearch.models.contract import normalize
from kdsearch.models.given_teachers import OnnxNetwork, PredictedTeacher, given_teacher, params_of, pixels_of

GRAY = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LIGHT = GRAY[:, None].float() / 255


def _network(*, shape=("n", 1, 16, 16), weights=None, bias=-3.0) -> bytes:
    """A 1×1 convolution; by default, logits are 6 times the gray value of 0-1, minus 3."""
    weights = np.full((1, shape[1], 1, 1), 6 / shape[1], np.float32) if weights is None else weights
    node = helper.make_node("Conv", ["image", "w", "b"], ["logits"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.full(len(weights), bias, np.float32), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def _config(**changes) -> OnnxTeacher:
    return OnnxTeacher(**{"kind": "onnx", "file": "t.onnx"} | changes)


@pytest.mark.parametrize("shape", [("n", 1, 16, 16), ("n", 3, "h", "w"), (1, 1, 16, 16)])
def test_network_receives_gray_values_from_0_to_1_in_all_its_channels(shape):
    logits = OnnxNetwork(_config(), _network(shape=shape), square(16))(normalize(GRAY))
    torch.testing.assert_close(logits, 6 * LIGHT - 3, atol=1e-4, rtol=0)


def test_configured_mean_and_std_normalize_the_input():
    logits = OnnxNetwork(_config(mean=0.5, std=0.25), _network(), square(16))(normalize(GRAY))
    torch.testing.assert_close(logits, 6 * (LIGHT - 0.5) / 0.25 - 3, atol=1e-4, rtol=0)


def test_larger_network_gets_enlarged_images_and_returns_the_study_s_size():
    flat = torch.full((2, 16, 16), 51, dtype=torch.uint8)
    logits = OnnxNetwork(_config(), _network(shape=("n", 1, 32, 32)), square(16))(normalize(flat))
    torch.testing.assert_close(logits, torch.full((2, 1, 16, 16), 6 * 0.2 - 3), atol=1e-4, rtol=0)


def test_two_class_outputs_become_one_logit_per_pixel():
    weights = np.array([1, 6], np.float32).reshape(2, 1, 1, 1)
    logits = OnnxNetwork(_config(), _network(weights=weights), square(16))(normalize(GRAY))
    torch.testing.assert_close(logits, 5 * LIGHT, atol=1e-4, rtol=0)


def test_probabilities_become_logits():
    clipped = _network(weights=np.full((1, 1, 1, 1), 0.5, np.float32), bias=0.25)
    logits = OnnxNetwork(_config(output="probabilities"), clipped, square(16))(normalize(GRAY))
    torch.testing.assert_close(logits, torch.logit(0.5 * LIGHT + 0.25), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (b"nothing", {}, "teacher.file: t.onnx: not a model that ONNX Runtime can open"),
        (
            _network(shape=("n", 2, 16, 16)),
            {},
            r"the input must be one float tensor N×1×H×W or N×3×H×W, got tensor\(float\)",
        ),
        (_network(shape=("n", 1, 8, 8)), {"size": 16}, "the input is 8×8, but teacher.size is 16; set teacher.size: 8"),
        (
            _network(),
            {"output": "probabilities"},
            "probabilities must be between 0 and 1, got .* set teacher.output: logits",
        ),
        (
            _network(weights=np.zeros((5, 1, 1, 1), np.float32)),
            {},
            r"must be floats N×1×H×W, .* got float32 \(2, 5, 16, 16\) for 2 images",
        ),
        (_network(weights=np.full((1, 1, 1, 1), np.nan, np.float32)), {}, "the output must be finite, got NaN"),
        (_network(shape=("n", 1, 16, 32)), {"size": 16}, "the input is 16×32, but teacher.size is 16"),
        (b"", {}, "teacher.file: t.onnx: "),
    ],
)
def test_file_that_violates_the_contract_is_refused(content, changes, message):
    with pytest.raises(TeacherError, match=message):
        OnnxNetwork(_config(**changes), content, square(16))


def test_stored_tensors_rebuild_the_same_teacher():
    for teacher, config in (
        (OnnxNetwork(_config(), _network(), square(16)), _config()),
        (PredictedTeacher.of(GRAY.numpy(), [np.full((1, 16, 16), 0.3, np.float32)] * 3), None),
    ):
        again = given_teacher(config, teacher.state_dict(), square(16))
        assert torch.equal(again(normalize(GRAY)), teacher(normalize(GRAY)))


def test_predictions_are_found_by_image_content_in_any_order():
    maps = [np.full((1, 16, 16), value, np.float32) for value in (0.1, 0.5, 0.9)]
    teacher = PredictedTeacher.of(GRAY.numpy(), maps)
    found = teacher(normalize(GRAY.flip(0)))
    assert torch.allclose(found.sigmoid()[:, 0, 0, 0], torch.tensor([0.9, 0.5, 0.1]), atol=1e-3)
    assert torch.isfinite(PredictedTeacher.of(GRAY.numpy(), [np.ones((1, 16, 16), np.float32)] * 3).logits).all()


def test_duplicated_image_has_the_mean_of_its_predictions():
    maps = [np.full((1, 16, 16), value, np.float32) for value in (0.2, 0.6)]
    teacher = PredictedTeacher.of(GRAY[[0, 0]].numpy(), maps)
    assert torch.allclose(teacher(normalize(GRAY[:1])).sigmoid(), torch.tensor(0.4), atol=1e-3)


def test_image_without_a_prediction_is_refused():
    teacher = PredictedTeacher.of(GRAY[:2].numpy(), [np.zeros((1, 16, 16), np.float32)] * 2)
    with pytest.raises(TeacherError, match="1 of 3 requested images have no prediction; add the missing"):
        teacher(normalize(GRAY))


def test_gray_values_survive_normalization():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    assert torch.equal(pixels_of(normalize(every))[:, 0], every)


def test_parameters_of_an_onnx_file_are_counted():
    assert params_of(_network(weights=np.zeros((2, 1, 3, 3), np.float32))) == 2 * 9 + 2
    assert onnx.load_from_string(_network()).graph.initializer[0].data_type == TensorProto.FLOAT


COLOR = Task(height=16, width=24, channels=3, outputs=3)
PIXELS = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_network_of_several_classes_and_colors_gives_a_logit_per_class():
    weights = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    network = _network(shape=("n", 3, "h", "w"), weights=weights, bias=0.0)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)
    logits = OnnxNetwork(_config(mean=mean, std=std), network, COLOR)(normalize(PIXELS))
    expected = (PIXELS / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    shares = OnnxNetwork(_config(output="probabilities"), network, COLOR)(normalize(PIXELS))
    torch.testing.assert_close(shares, (PIXELS / 255).clamp_min(1e-4).log(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_network(shape=("n", 3, "h", "w")), "floats N×3×H×W, one channel per class, background first, got"),
        (_network(shape=("n", 1, "h", "w")), "the input has one channel, but data.channels is 3"),
    ],
)
def test_network_that_does_not_fit_classes_or_colors_is_refused(content, message):
    with pytest.raises(TeacherError, match=message):
        OnnxNetwork(_config(), content, COLOR)


def test_predictions_of_several_classes_are_found_by_the_colors_of_an_image():
    maps = [torch.softmax(torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(n)), 0) for n in range(2)]
    teacher = PredictedTeacher.of(PIXELS.numpy(), [one.numpy() for one in maps])
    found = teacher(normalize(PIXELS.flip(0)))
    torch.testing.assert_close(found.softmax(dim=1), torch.stack(maps).flip(0), atol=1e-2, rtol=0)
