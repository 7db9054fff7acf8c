"""Students on timm's encoders: cut, started from pretrained weights, and centered by geometry."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from kdsearch.config.networks import WEIGHTS, TeacherConfig, TimmSpec
from kdsearch.config.task import square
from kdsearch.errors import EncoderError
from kdsearch.models.contract import INPUT_MEAN, INPUT_STD, normalize
from kdsearch.models.costs import cost_of
from kdsearch.models.encoders import input_statistics
from kdsearch.models.students import build_student
from kdsearch.models.teacher import build_teacher

LITE0 = "tf_efficientnet_lite0"


def _spec(**changes) -> TimmSpec:
    return TimmSpec(**{"family": "timm", "depth": 3, "width": 8} | changes)


def test_blocks_beyond_the_cut_are_not_built():
    """EfficientNet-Lite0, cut at stride 8, has a stem and three stages; the whole has 4.7 million parameters."""
    names = [name for name, _ in build_student(_spec(), device="meta").encoder.named_parameters()]
    assert {re.match(r"blocks\.(\d)", name).group(1) for name in names if name.startswith("blocks")} == {"0", "1", "2"}
    costs = [cost_of(_spec(depth=depth), square(64)) for depth in (1, 2, 3, 4, 5)]
    assert all(a.params < b.params and a.macs < b.macs for a, b in itertools.pairwise(costs))


def test_student_and_teacher_encoders_start_from_the_same_weights():
    student, teacher = build_student(_spec()).eval(), build_teacher(TeacherConfig(encoder_depth=3), square(64)).eval()
    image = normalize(torch.randint(0, 255, (2, 64, 64), dtype=torch.uint8))
    with torch.no_grad():
        mine, theirs = student.features(image), teacher.features(image)
    by_side = {maps.shape[-1]: maps for maps in theirs}
    assert all(torch.allclose(maps, by_side[maps.shape[-1]], atol=1e-5) for maps in mine)


def test_seed_affects_the_decoder_and_not_the_pretrained_encoder():
    one, other = (build_student(_spec(), seed=seed).state_dict() for seed in (0, 1))
    moved = {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}
    assert moved == {"decoder", "head"}


def test_encoder_receives_gray_values_in_the_range_it_was_trained_on():
    seen = []
    student = build_student(_spec(weights="none"))
    student.encoder.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    gray = torch.randint(0, 255, (1, 16, 16), dtype=torch.uint8)
    student.eval()(normalize(gray))
    (mean,), (std,) = input_statistics(LITE0, channels=1)
    assert (mean, std) != (INPUT_MEAN, INPUT_STD)
    assert torch.allclose(seen[0][0, 0], (gray[0] / 255 - mean) / std, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "resnet180"}, r"student.encoder: timm .* has no 'resnet180'; did you mean 'resnet18"),
        ({"encoder": "convnext_atto", "depth": 1}, "depth: 1 needs feature maps of stride 2, but .* has strides 4, 8"),
        ({"encoder": "swin_tiny_patch4_window7_224"}, "does not compute feature maps by stage for .*; use a"),
        ({"encoder": "dla34"}, "student.encoder: dla34 cannot be cut at stride 8: its feature maps change"),
        ({"encoder": "mambaout_femto"}, "student.encoder: the feature maps of mambaout_femto differ"),
        ({"encoder": "hrnet_w18_small"}, "student.encoder: hrnet_w18_small "),
        ({"encoder": "xception41"}, "student.encoder: xception41 "),
        ({"encoder": "vit_tiny_patch16_224"}, "student.encoder: vit_tiny_patch16_224 "),
    ],
)  # fmt: skip
def test_encoder_unusable_as_a_student_is_refused_with_the_reason(changes, message):
    with pytest.raises(EncoderError, match=message):
        cost_of(_spec(weights="none", **changes), square(64))


def test_missing_weights_are_named():
    with pytest.raises(EncoderError, match="student.weights: package 'kdsearch_no_such' is not installed"):
        build_student(_spec(weights="package:kdsearch_no_such"))


def test_weights_of_another_encoder_are_refused():
    with pytest.raises(ValueError, match="has weights of tf_efficientnet_lite0, not of efficientnet_lite0"):
        _spec(encoder="efficientnet_lite0", weights=WEIGHTS)


def test_offline_download_error_names_an_alternative(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="student.weights: timm's weights could not be downloaded; .* an installed"):
        build_student(_spec(encoder="resnet10t", weights="timm"))
