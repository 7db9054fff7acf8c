"""Views: image, mask and maps move together; noise changes only the image."""

from __future__ import annotations

import pytest
import torch

from kdsearch.config.training import AugmentationSpec
from kdsearch.distill.batches import random_affine, strong_view, warp
from kdsearch.models.contract import INPUT_MEAN, INPUT_STD, normalize

NOTHING = dict.fromkeys(AugmentationSpec.model_fields, 0.0)
STRONG = AugmentationSpec(flip=0.5, rotation_degrees=30, scale=0.2, shift=0.1, crop=0.2, noise=0.05, dropout=0.05)
GEOMETRY = STRONG.model_copy(update={"noise": 0.0, "dropout": 0.0})


def _spec(**changes: float) -> AugmentationSpec:
    return AugmentationSpec(**NOTHING | changes)


def _discs(count: int = 6, size: int = 64) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centers = torch.randint(20, 44, (count, 2), generator=torch.Generator().manual_seed(0))
    inside = [(rows - y) ** 2 + (columns - x) ** 2 < 100 for y, x in centers]
    return (torch.stack(inside) * 255).to(torch.uint8)


def _view(spec, discs, logits=None, seed=0):
    return strong_view(discs[:, None], discs // 255, logits, spec=spec, generator=torch.Generator().manual_seed(seed))


def _logits(discs: torch.Tensor) -> torch.Tensor:
    return (discs.float().unsqueeze(1) / 255 * 20 - 10).half()


def test_view_without_augmentation_is_the_image():
    discs = _discs()
    view = _view(_spec(), discs, _logits(discs))
    torch.testing.assert_close(view.image, normalize(discs), atol=1e-4, rtol=0)
    assert torch.equal(view.target, (discs > 0).long())
    torch.testing.assert_close(view.teacher_logits, _logits(discs).float(), atol=1e-3, rtol=0)


def test_image_mask_and_logits_move_together():
    discs = _discs()
    view = _view(GEOMETRY, discs, _logits(discs))
    assert not torch.equal(view.target, (discs > 0).long())
    image = (view.image * INPUT_STD + INPUT_MEAN)[:, 0] > 0.5
    assert (image.long() != view.target).float().mean() < 1e-3
    assert ((view.teacher_logits[:, 0] > 0).long() != view.target).float().mean() < 1e-3


def test_noise_and_dropout_change_only_the_image():
    discs = _discs()
    quiet, noisy = _view(GEOMETRY, discs, _logits(discs)), _view(STRONG, discs, _logits(discs))
    assert torch.equal(quiet.target, noisy.target)
    assert torch.equal(quiet.teacher_logits, noisy.teacher_logits)
    assert not torch.equal(quiet.image, noisy.image)
    assert torch.equal(quiet.weak, noisy.weak)
    assert torch.equal(quiet.image, quiet.weak)


def test_same_generator_state_gives_the_same_view_and_another_does_not():
    discs = _discs()
    assert torch.equal(_view(STRONG, discs, seed=1).image, _view(STRONG, discs, seed=1).image)
    assert not torch.equal(_view(STRONG, discs, seed=1).image, _view(STRONG, discs, seed=2).image)


def test_each_image_of_a_batch_gets_its_own_transform():
    theta = random_affine(8, STRONG, torch.Generator().manual_seed(0))
    assert len({tuple(row) for row in theta.flatten(1).tolist()}) == 8


def test_flip_mirrors_left_and_right():
    discs = _discs()
    view = _view(_spec(flip=1.0), discs)
    assert torch.equal(view.target, (discs > 0).long().flip(-1))


def test_rotation_by_hand():
    theta = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(warp(maps, theta), torch.rot90(maps, 1, dims=(2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("setting", "value"), [("shift", 0.1), ("crop", 0.3), ("scale", 0.3)])
def test_each_setting_stays_within_its_range(setting, value):
    theta = random_affine(500, _spec(**{setting: value}), torch.Generator().manual_seed(0))
    zoom, offset = theta[:, 0, 0], theta[:, :, 2].abs().max().item()
    if setting == "shift":
        assert torch.allclose(zoom, torch.ones(500))
        assert 0.15 < offset <= 0.2
    elif setting == "crop":
        assert 0.7 <= zoom.min().item() < 0.75
        assert (theta[:, :, 2].abs().amax(dim=1) <= 1 - zoom + 1e-6).all()
    else:
        assert zoom.min().item() >= 1 / 1.3 - 1e-6
        assert zoom.max().item() <= 1 / 0.7 + 1e-6
        assert offset == 0


def test_dropout_blackens_at_most_the_configured_fraction():
    white = torch.full((200, 32, 32), 255, dtype=torch.uint8)
    view = _view(_spec(dropout=0.3), white)
    black = (view.image < 0).float().mean(dim=(1, 2, 3))
    assert 0.2 < black.max().item() < 0.4
    assert black.mean().item() == pytest.approx(0.15, abs=0.03)
