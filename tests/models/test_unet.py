"""The student family."""

from __future__ import annotations

import pytest
import torch

from kdsearch.config.networks import UNetSpec
from kdsearch.errors import ShapeError
from kdsearch.models.students import build_student


def _spec(**changes):
    return UNetSpec(**{"width": 4, "depth": 2, "convs_per_stage": 1, "conv": "standard"} | changes)


@pytest.mark.parametrize("conv", ["standard", "separable"])
@pytest.mark.parametrize("depth", [1, 3, 5])
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("size", [(32, 64), (96, 32)])
def test_logits_have_the_image_s_size_and_feature_maps_the_stride_s(conv, depth, classes, size):
    model = build_student(_spec(depth=depth, conv=conv), outputs=classes).eval()
    outputs = model.outputs(torch.zeros(2, 1, *size))
    logits, hidden = outputs.logits, outputs.features[-1]
    assert logits.shape == (2, classes, *size)
    assert hidden.shape == (2, model.map_channels[2**depth], size[0] // 2**depth, size[1] // 2**depth)


def test_indivisible_size_gets_a_valid_suggestion():
    with pytest.raises(
        ShapeError, match=r"the student's stride 4 must divide the image size, got 30×45; .* works is 32×44"
    ):
        build_student(_spec())(torch.zeros(1, 1, 30, 45))


def _params(**changes) -> int:
    return sum(p.numel() for p in build_student(_spec(**changes), device="meta").parameters())


def test_family_spans_two_thousand_to_eight_million_parameters():
    assert _params(width=4, depth=2, convs_per_stage=2, conv="separable") < 2_000
    assert 7_500_000 < _params(width=32, depth=4, convs_per_stage=2) < 8_500_000


def test_parameters_are_counted_by_hand():
    # width 2, depth 1: 1→2, 2→4, (4+2)→2 convolutions of 3×3 without bias, batch norms of 2, 4, 2, head of 2+1
    assert _params(width=2, depth=1) == 9 * (2 + 8 + 12) + 2 * (2 + 4 + 2) + 3


def test_each_setting_changes_the_parameter_count_as_expected():
    assert _params(width=5) > _params()
    assert _params(depth=3) > _params()
    assert _params(convs_per_stage=2) > _params()
    assert _params(conv="separable") < _params()


def test_weights_depend_on_the_seed_and_torch_s_state_is_unchanged():
    before = torch.random.get_rng_state()
    a, b, other = (build_student(_spec(), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head.weight"], other["head.weight"])
