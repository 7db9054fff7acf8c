"""What every loss of the table does, whatever it is a distance of."""

from __future__ import annotations

import typing

import pytest
import torch

from kdsearch.config.distillation import LOSSES, DistilledPath, Loss
from kdsearch.distill.term_losses import TERM_LOSSES, Softening

PAIRS = [(path, loss) for path, allowed in LOSSES.items() for loss in allowed]
HOW = Softening(logit_std=2.0, temperature=3.0, supervised="dice_cross_entropy")


def _compare(path, loss, student, teacher):
    of = TERM_LOSSES[loss]
    return of.logits(student, teacher, HOW) if path == "logits" else of.maps(student, teacher)


def _values(path, seed, *, channels=3, images=4):
    return 2 * torch.randn(
        images, 1 if path == "logits" else channels, 8, 8, generator=torch.Generator().manual_seed(seed)
    )


def test_table_and_study_file_agree():
    assert set(TERM_LOSSES) == set(typing.get_args(Loss))
    assert set(LOSSES) == set(typing.get_args(DistilledPath))
    for path, allowed in LOSSES.items():
        of_this_kind = {name for name, loss in TERM_LOSSES.items() if (loss.logits if path == "logits" else loss.maps)}
        assert set(allowed) == of_this_kind
    assert {(path, name) for name, loss in TERM_LOSSES.items() for path in loss.scales} == set(PAIRS)


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_nothing_is_nearer_to_the_teacher_than_itself(path, loss):
    teacher = _values(path, 0)
    own = _compare(path, loss, teacher, teacher)
    for seed in range(1, 4):
        for step in (0.1, 1.0):
            assert _compare(path, loss, teacher + step * _values(path, seed), teacher) > own


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_gradient_leads_to_the_teacher_and_leaves_it_alone(path, loss):
    student, teacher = _values(path, 1).requires_grad_(), _values(path, 0)
    optimizer = torch.optim.Adam([student], lr=0.05)
    first = _compare(path, loss, student, teacher).item()
    for _ in range(200):
        optimizer.zero_grad()
        _compare(path, loss, student, teacher).backward()
        optimizer.step()
    least = _compare(path, loss, teacher, teacher).item()
    assert _compare(path, loss, student, teacher).item() - least < 0.1 * (first - least)
    assert not teacher.requires_grad


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_it_is_an_average_over_images(path, loss):
    student, teacher = _values(path, 1), _values(path, 0)
    each = torch.stack([_compare(path, loss, student[n : n + 1], teacher[n : n + 1]) for n in range(len(student))])
    torch.testing.assert_close(_compare(path, loss, student, teacher), each.mean())
    torch.testing.assert_close(_compare(path, loss, student.flip(0), teacher.flip(0)), each.mean())


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_size_of_the_image_changes_nothing(path, loss):
    student, teacher = _values(path, 1), _values(path, 0)
    larger = _compare(path, loss, student.tile(1, 1, 2, 2), teacher.tile(1, 1, 2, 2))
    torch.testing.assert_close(larger, _compare(path, loss, student, teacher))


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_extreme_values_stay_finite(path, loss):
    student = (1e4 * _values(path, 1)).requires_grad_()
    value = _compare(path, loss, student, 1e4 * _values(path, 0))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
