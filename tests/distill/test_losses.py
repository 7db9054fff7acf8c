"""Losses: tiling changes nothing; references agree."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch
from torch.nn import functional

from kdsearch.config.distillation import LOSSES, DistilledPath, Loss
from kdsearch.distill import losses
from kdsearch.distill.losses import TERM_LOSSES, Setting

KINDS = {
    "cross_entropy": lambda s, t: losses.cross_entropy(s, _classes(t)),
    "soft_dice": lambda s, t: losses.soft_dice(s, _classes(t)),
    "supervised": lambda s, t: losses.supervised(s, _classes(t), "dice_cross_entropy"),
    "logits_mse": losses.logits_mse,
    "logits_kld": lambda s, t: losses.logits_kld(s, t, 2.0),
    "logits_dml": lambda s, t: losses.logits_dml(s, t, "dice_cross_entropy"),
    "logits_dml_cross_entropy": lambda s, t: losses.logits_dml(s, t, "cross_entropy"),
    "standardized": lambda s, t: losses.maps_mse(losses.standardized(s), losses.standardized(t)),
    "maps_mse": losses.maps_mse,
    "maps_kld": losses.maps_kld,
    "maps_cwd": lambda s, t: losses.maps_kld(s, t, 4.0),
    "maps_pkd": losses.maps_pkd,
    "maps_region": lambda s, t: losses.maps_region(s, t, _classes(t), classes=max(2, t.shape[1])),
    "attention_mse": lambda s, t: losses.maps_mse(losses.attention(s), losses.attention(t)),
    "attention_kld": lambda s, t: losses.maps_kld(losses.attention(s), losses.attention(t)),
}


def _classes(logits: torch.Tensor) -> torch.Tensor:
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def _pair(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(channels)
    student, teacher = (2 * torch.randn(3, channels, 4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", KINDS)
def test_tiling_or_repeating_images_does_not_change_the_loss(name, channels):
    student, teacher = _pair(channels)
    once = KINDS[name](student, teacher)
    tiled = KINDS[name](student.repeat(1, 1, 3, 2), teacher.repeat(1, 1, 3, 2))
    repeated = KINDS[name](student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1))
    assert tiled.item() == pytest.approx(once.item())
    assert repeated.item() == pytest.approx(once.item())


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(
    "name",
    [
        "logits_mse",
        "logits_kld",
        "maps_mse",
        "maps_kld",
        "maps_cwd",
        "maps_pkd",
        "maps_region",
        "attention_mse",
        "attention_kld",
    ],
)
def test_loss_is_zero_on_agreement_and_positive_otherwise(name, channels):
    student, teacher = _pair(channels)
    assert KINDS[name](teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert KINDS[name](student, teacher).item() > 1e-3


def test_one_channel_equals_two_channels_with_zero_background_logits():
    student, teacher = _pair(1)
    pair = [torch.cat([torch.zeros_like(logits), logits], dim=1) for logits in (student, teacher)]
    assert losses.logits_kld(student, teacher, 3.0).item() == pytest.approx(losses.logits_kld(*pair, 3.0).item())
    target = _classes(teacher)
    assert losses.cross_entropy(student, target).item() == pytest.approx(losses.cross_entropy(pair[0], target).item())
    assert losses.soft_dice(student, target).item() == pytest.approx(losses.soft_dice(pair[0], target).item())


def test_kl_of_a_single_channel_is_binary_and_not_zero():
    student, teacher = _pair(1)
    over_channels = functional.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="sum")
    assert over_channels.item() == 0
    assert losses.logits_kld(student, teacher, 1.0).item() > 0.1


def test_kld_agrees_with_torch():
    student, teacher = _pair(4)
    p, q = (teacher / 2).softmax(1), (student / 2).log_softmax(1)
    expected = functional.kl_div(q, p, reduction="sum") / (3 * 4 * 6) * 4
    assert losses.logits_kld(student, teacher, 2.0).item() == pytest.approx(expected.item())


def test_bernoulli_kl_by_hand():
    student, teacher = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 3.0).double()
    p = torch.sigmoid(torch.tensor(3.0, dtype=torch.float64))
    expected = p * torch.log(p / 0.5) + (1 - p) * torch.log((1 - p) / 0.5)
    assert losses.logits_kld(student.double(), teacher, 1.0).item() == pytest.approx(expected.item())


def test_temperature_keeps_the_gradient_s_scale():
    _, teacher = _pair(1)
    norms = []
    for temperature in (1.0, 4.0):
        student = (teacher + 0.01).requires_grad_()
        losses.logits_kld(student, teacher / 50, temperature).backward()
        norms.append(student.grad.norm().item())
    assert 0.2 < norms[1] / norms[0] < 5


def test_losses_stay_finite_for_extreme_logits():
    sure = torch.full((1, 1, 2, 2), 200.0)
    for loss in (
        losses.logits_kld(sure, -sure, 1.0),
        losses.maps_kld(sure, -sure),
        losses.soft_dice(sure, torch.zeros(1, 2, 2)),
    ):
        assert torch.isfinite(loss)


def test_soft_dice_is_zero_if_perfect_and_has_a_gradient_on_empty_masks():
    target = torch.tensor([[[1, 0], [0, 0]]])
    assert losses.soft_dice((target.unsqueeze(1) * 2.0 - 1) * 50, target).item() == pytest.approx(0, abs=1e-3)
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    losses.soft_dice(logits, torch.zeros(1, 2, 2)).backward()
    assert (logits.grad > 0).all()


def test_attention_has_unit_rms_and_is_finite_for_zero_maps():
    maps = losses.attention(torch.randn(2, 5, 4, 4))
    assert maps.shape == (2, 1, 4, 4)
    assert maps.square().mean(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1])
    assert torch.isfinite(losses.attention(torch.zeros(1, 5, 4, 4))).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_dml_equals_the_supervised_loss_for_a_certain_teacher(channels):
    """With probabilities of 0 and 1 the semimetric is soft Dice's 1 - 2·both / (a + b)."""
    student, _ = _pair(channels)
    target = torch.randint(0, max(2, channels), (3, 4, 6), generator=torch.Generator().manual_seed(0))
    if channels == 1:
        sure = 60 * (2.0 * target[:, None].double() - 1)
    else:
        sure = 60 * functional.one_hot(target, channels).permute(0, 3, 1, 2).double()
    for kind in ("cross_entropy", "dice_cross_entropy"):
        expected = losses.supervised(student, target, kind)
        assert losses.logits_dml(student, sure, kind).item() == pytest.approx(expected.item(), rel=2e-3)


def test_dml_semimetric_by_hand():
    """Pixels of 0.5 and 0.25 compared with 1 and 0: 1 - (0.375 + 0.5 - 0.375) / (0.375 + 0.5)."""
    student = torch.logit(torch.tensor([[[[0.5, 0.25]]]], dtype=torch.float64))
    teacher = torch.tensor([[[[60.0, -60.0]]]], dtype=torch.float64)
    both = losses.logits_dml(student, teacher, "dice_cross_entropy")
    entropy = losses.logits_dml(student, teacher, "cross_entropy")
    assert (both - entropy).item() == pytest.approx(1 - 0.5 / 0.875, abs=2e-3)


def test_dml_is_smallest_when_student_and_teacher_agree():
    _, teacher = _pair(1)
    student = teacher.clone().requires_grad_()
    losses.logits_dml(student, teacher, "dice_cross_entropy").backward()
    assert student.grad.abs().max() < 0.2
    apart = losses.logits_dml(teacher + 0.3, teacher, "dice_cross_entropy")
    assert apart > losses.logits_dml(teacher, teacher, "dice_cross_entropy")


def test_standardized_channels_do_not_depend_on_scale_or_offset():
    maps, _ = _pair(4)
    scaled = losses.standardized(7 * maps + torch.arange(4.0)[None, :, None, None])
    torch.testing.assert_close(losses.standardized(maps), scaled)
    assert scaled.square().mean(dim=(0, 2, 3)).tolist() == pytest.approx([1.0] * 4)


PAIRS = [(path, loss) for path, allowed in LOSSES.items() for loss in allowed]


def _target(maps):
    """One lesion in every 8×8 pixels."""
    target = torch.zeros(len(maps), 8, 8, dtype=torch.long)
    target[:, 2:5, 3:6] = 1
    return target.tile(1, maps.shape[-2] // 8, maps.shape[-1] // 8)


def _compare(path, loss, student, teacher):
    of = TERM_LOSSES[loss]
    how = Setting(logit_std=2.0, temperature=3.0, supervised="dice_cross_entropy", target=_target(student))
    return of.logits(student, teacher, how) if path == "logits" else of.maps(student, teacher, how)


def _values(path, seed, *, channels=3, images=4):
    return 2 * torch.randn(
        images, 1 if path == "logits" else channels, 8, 8, generator=torch.Generator().manual_seed(seed)
    )


def test_table_and_study_file_agree():
    assert set(TERM_LOSSES) == set(typing.get_args(Loss))
    assert set(LOSSES) == set(typing.get_args(DistilledPath))
    for path, allowed in LOSSES.items():
        assert set(allowed) == {name for name, loss in TERM_LOSSES.items() if path in loss.scales}
    for loss in TERM_LOSSES.values():
        assert (loss.logits is not None) == ("logits" in loss.scales)
        assert (loss.maps is not None) == any(path != "logits" for path in loss.scales)


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_loss_is_smallest_for_the_teacher_s_own_output(path, loss):
    teacher = _values(path, 0)
    own = _compare(path, loss, teacher, teacher)
    for seed in range(1, 4):
        for step in (0.1, 1.0):
            assert _compare(path, loss, teacher + step * _values(path, seed), teacher) > own


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_gradient_descent_approaches_the_teacher_without_changing_it(path, loss):
    student, teacher = _values(path, 1).requires_grad_(), _values(path, 0)
    optimizer = torch.optim.Adam([student], lr=0.05)
    first = _compare(path, loss, student, teacher).item()
    for _ in range(200):
        optimizer.zero_grad()
        _compare(path, loss, student, teacher).backward()
        optimizer.step()
    least = _compare(path, loss, teacher, teacher).item()
    assert _compare(path, loss, student, teacher).item() - least < 0.1 * (first - least)
    assert torch.equal(teacher, _values(path, 0))


@pytest.mark.parametrize(("path", "loss"), [pair for pair in PAIRS if pair[1] != "pkd"])  # pkd pools all images
def test_loss_is_an_average_over_images(path, loss):
    student, teacher = _values(path, 1), _values(path, 0)
    each = torch.stack([_compare(path, loss, student[n : n + 1], teacher[n : n + 1]) for n in range(len(student))])
    torch.testing.assert_close(_compare(path, loss, student, teacher), each.mean())
    torch.testing.assert_close(_compare(path, loss, student.flip(0), teacher.flip(0)), each.mean())


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_loss_does_not_depend_on_the_image_size(path, loss):
    student, teacher = _values(path, 1), _values(path, 0)
    if loss == "affinity":  # averaging would mix neighboring tiles
        student, teacher = (maps[..., :4, :4] for maps in (student, teacher))
    larger = _compare(path, loss, student.tile(1, 1, 2, 2), teacher.tile(1, 1, 2, 2))
    torch.testing.assert_close(larger, _compare(path, loss, student, teacher))


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_extreme_values_stay_finite(path, loss):
    student = (1e4 * _values(path, 1)).requires_grad_()
    value = _compare(path, loss, student, 1e4 * _values(path, 0))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_cwd_matches_its_formula_and_ignores_a_constant_offset():
    """Shu et al. 2021, equation 4; adding a constant to a channel does not change it."""
    student, teacher = _pair(3)
    expected = sum(
        functional.kl_div((s / 4).flatten().log_softmax(0), (t / 4).flatten().softmax(0), reduction="sum") * 16
        for s, t in zip(student.flatten(0, 1), teacher.flatten(0, 1), strict=True)
    )
    assert losses.maps_kld(student, teacher, 4.0).item() == pytest.approx(expected.item() / 9)
    assert losses.maps_kld(student + 5, teacher, 4.0).item() == pytest.approx(expected.item() / 9)


def test_pkd_is_one_minus_pearson_of_each_channel():
    student, teacher = _pair(4)
    rows = [maps.transpose(0, 1).flatten(1).numpy() for maps in (student, teacher)]
    r = [np.corrcoef(s, t)[0, 1] for s, t in zip(*rows, strict=True)]
    assert losses.maps_pkd(student, teacher).item() == pytest.approx(1 - np.mean(r))
    assert losses.maps_pkd(3 * student - 7, teacher).item() == pytest.approx(1 - np.mean(r)), (
        "scale and offset have no effect"
    )


def test_affinity_compares_cosines_between_all_pairs_of_positions():
    student, teacher = _pair(4)[0], _pair(7)[1]
    tables = [
        functional.cosine_similarity(maps.flatten(2)[..., :, None], maps.flatten(2)[..., None, :], dim=1)
        for maps in (student, teacher)
    ]
    assert tables[0].shape == (3, 24, 24)
    expected = (tables[0] - tables[1]).square().mean()
    assert losses.maps_affinity(student, teacher).item() == pytest.approx(expected.item())


def test_affinity_of_fine_maps_equals_that_of_pooled_maps():
    student, teacher = (torch.randn(2, 3, 32, 16, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    coarse = [functional.adaptive_avg_pool2d(maps, (8, 8)) for maps in (student, teacher)]
    torch.testing.assert_close(losses.maps_affinity(student, teacher), losses.maps_affinity(*coarse))


def test_region_compares_each_position_s_cosine_to_its_class_mean():
    """IFVD as its authors compute it, image by image and class by class."""
    student, teacher = _pair(4)[0], _pair(7)[1]
    target = torch.randint(0, 3, (3, 4, 6), generator=torch.Generator().manual_seed(1))

    def similar(maps):
        found = torch.zeros(3, 4, 6, dtype=torch.float64)
        for image in range(3):
            for number in range(3):
                here = target[image] == number
                mean = maps[image][:, here].mean(dim=1, keepdim=True)
                found[image][here] = functional.cosine_similarity(maps[image][:, here], mean, dim=0)
        return found

    expected = (similar(student) - similar(teacher)).square().mean()
    assert losses.maps_region(student, teacher, target, classes=3).item() == pytest.approx(expected.item())


def test_region_of_a_negative_image_is_finite():
    student, teacher = (maps.requires_grad_() for maps in _pair(4))
    value = losses.maps_region(student, teacher, torch.zeros(3, 4, 6, dtype=torch.long))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_region_of_coarse_cells_counts_fractions_of_pixels():
    student, teacher = _pair(4)
    fine = torch.zeros(3, 8, 12, dtype=torch.long)
    fine[:, :4, :6] = 1
    coarse = fine[:, ::2, ::2]
    torch.testing.assert_close(losses.maps_region(student, teacher, fine), losses.maps_region(student, teacher, coarse))
