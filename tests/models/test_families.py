"""The contract for student families; a new one needs a spec, a network, a line in the tables and corners here."""

from __future__ import annotations

import itertools
import typing

import pytest
import torch

from kdsearch.config.networks import SPECS, FamilyName, UNetSpec
from kdsearch.config.ranges import Space, extremes_of, space_of
from kdsearch.config.task import square
from kdsearch.errors import ShapeError
from kdsearch.measure.counts import count
from kdsearch.models.costs import cost_of, map_channels_of
from kdsearch.models.students import NETWORKS, build_student

CORNERS = {
    "unet": {"width": [2, 5], "growth": [1.0, 1.5], "depth": [1, 3], "convs_per_stage": [1, 2],
             "conv": ["standard", "separable"]},
    "timm": {"encoder": ["lcnet_050", "convnext_atto"], "depth": [3, 4], "width": [3], "convs_per_stage": [1, 2],
             "conv": ["standard", "separable"], "encoder_lr_factor": [1.0]},
}  # fmt: skip
WEIGHTS = {"unet": {}, "timm": {"weights": "none"}}
STUDENTS = [
    SPECS[name](family=name, **WEIGHTS[name], **dict(zip(corners, values, strict=True)))
    for name, corners in CORNERS.items()
    for values in itertools.product(*corners.values())
]
each_spec = pytest.mark.parametrize("spec", STUDENTS, ids=lambda spec: spec.summary().replace(" ", "-"))


def test_table_literal_and_this_suite_name_the_same_families():
    assert set(NETWORKS) == set(SPECS) == set(typing.get_args(FamilyName)) == set(CORNERS)
    assert all(spec(family=name).family == name for name, spec in SPECS.items())


@pytest.mark.parametrize("name", SPECS)
def test_every_setting_but_the_family_can_be_searched_and_is_explained(name):
    space = space_of(SPECS[name])
    assert Space[SPECS[name]] is space
    assert set(CORNERS[name]) == set(space.model_fields) - {"family", *WEIGHTS[name]}
    assert all(field.description for field in space.model_fields.values())


@each_spec
@pytest.mark.parametrize("size", [32, 48])
def test_cost_equals_that_of_the_built_network(spec, size):
    size = -(-size // spec.stride) * spec.stride
    assert cost_of(spec, square(size)) == count(build_student(spec, device="meta"), square(size))


@each_spec
def test_logits_have_the_image_s_size_and_features_the_spec_s_channels(spec):
    height, width = 2 * spec.stride, 3 * spec.stride
    network = build_student(spec, outputs=3).eval()
    outputs = network.outputs(torch.zeros(2, 1, height, width))
    assert outputs.logits.shape == (2, 3, height, width)
    found = {width // maps.shape[3]: maps.shape[1] for maps in outputs.features}
    assert found == map_channels_of(spec) == network.map_channels
    assert outputs.features[-1].shape[2:] == (height // spec.stride, width // spec.stride)
    assert all(a.shape[-1] >= b.shape[-1] for a, b in itertools.pairwise(outputs.features))
    with pytest.raises(ShapeError, match=f"stride {spec.stride} must divide .*; the nearest size that works"):
        network(torch.zeros(1, 1, height + 1, width))


@each_spec
def test_every_weight_gets_a_gradient(spec):
    network = build_student(spec).train()
    generator = torch.Generator().manual_seed(0)
    size = max(32, 4 * spec.stride)
    network(torch.randn(4, 1, size, size, generator=generator)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@each_spec
def test_weights_depend_on_the_seed(spec):
    first, again, other = (build_student(spec, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@each_spec
def test_spec_survives_json(spec):
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


def test_summaries_and_descriptions_are_unique_per_spec():
    assert len({spec.summary() for spec in STUDENTS}) == len({spec.describe() for spec in STUDENTS}) == len(STUDENTS)


def test_corners_of_a_space_hold_its_smallest_and_largest_student():
    space = space_of(UNetSpec).model_validate_json('{"growth": {"float": [1.2, 1.8]}}')
    assert extremes_of(space.growth) == [1.2, 1.8]


def test_channels_grow_by_stage_and_are_rounded():
    assert UNetSpec(width=7, growth=1.5, depth=4).channels == (7, 11, 16, 24, 35)
    assert UNetSpec(width=16, growth=1.0, depth=2).channels == (16, 16, 16)
