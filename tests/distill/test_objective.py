"""The twelve variants of the paper, and what must never learn."""

from __future__ import annotations

import itertools

import pytest
import torch

from kdsearch.config.distillation import DistillationSpec
from kdsearch.config.student import StudentSpec
from kdsearch.distill import losses
from kdsearch.distill.objective import Distillation, on_one_grid, regressor, supervised_objective
from kdsearch.distill.views import Batch, TeacherMaps
from kdsearch.models.unet import build_student

GRID = list(itertools.product(("logits", "hidden", "regressor"), ("mse", "kld"), ("same", "weak")))


def _student(width: int = 4, classes: int = 1):
    return build_student(
        StudentSpec(width=width, depth=2, convolutions=1, convolution="standard"), classes=classes, seed=width
    )


def _spec(path="logits", loss="kld", view="weak", weight=0.5) -> DistillationSpec:
    temperature = 2.0 if loss == "kld" else None
    return DistillationSpec(path=path, loss=loss, teacher_view=view, weight=weight, temperature=temperature)


def _batch(*, maps: TeacherMaps | None, classes: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, 16, 16, generator=generator)
    return Batch(image=image, target=torch.randint(0, max(2, classes), (2, 16, 16), generator=generator), maps=maps)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("path", "loss", "view"), GRID)
def test_every_variant_teaches_the_student_and_never_the_teacher(path, loss, view, classes):
    student, teacher = _student(classes=classes), _student(width=6, classes=classes).eval()
    logits, hidden = (part.detach() for part in teacher.with_hidden(torch.randn(2, 1, 16, 16)))
    maps = TeacherMaps(logits=logits, hidden=hidden) if view == "weak" else None
    channels = (student.hidden_channels, teacher.hidden_channels)
    objective = Distillation(student, _spec(path, loss, view), "cross_entropy", teacher=teacher, channels=channels)
    objective(_batch(maps=maps, classes=classes)).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.encoder[0][0].weight.grad.abs().sum() > 0
    assert (objective.regressor is not None) == (path == "regressor")
    if objective.regressor is not None:
        assert all(parameter.grad is not None for parameter in objective.regressor.parameters())


def test_regressor_is_the_only_thing_the_objective_owns():
    student, teacher = _student(), _student(width=6)
    objective = Distillation(student, _spec("regressor"), "cross_entropy", teacher=teacher, channels=(16, 24))
    owned = {id(parameter) for parameter in objective.parameters()}
    assert owned == {id(parameter) for parameter in objective.regressor.parameters()}
    assert not owned & {id(parameter) for parameter in student.parameters()}


def test_regressor_is_two_convolutions_and_a_relu():
    layers = [type(layer).__name__ for layer in regressor(4, 9)]
    assert layers == ["Conv2d", "ReLU", "Conv2d"]
    assert regressor(4, 9)(torch.zeros(1, 4, 2, 2)).shape == (1, 9, 2, 2)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_weight_shares_the_loss_between_teacher_and_masks(weight):
    student = _student().eval()
    batch = _batch(maps=TeacherMaps(logits=torch.randn(2, 1, 16, 16), hidden=torch.randn(2, 24, 4, 4)))
    spec = _spec("logits", "mse", weight=weight)
    loss = Distillation(student, spec, "cross_entropy", teacher=None, channels=(16, 24))(batch)
    logits = student(batch.image)
    supervised = supervised_objective(student, "cross_entropy")(batch)
    expected = weight * losses.logits_mse(logits, batch.maps.logits) + (1 - weight) * supervised
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_equal_channels_are_compared_directly_and_unequal_ones_by_attention():
    student = _student().eval()
    batch = _batch(maps=None)
    hidden = student.with_hidden(batch.image)[1].detach()

    def distilled(teacher_hidden: torch.Tensor) -> float:
        maps = TeacherMaps(logits=torch.zeros(2, 1, 16, 16), hidden=teacher_hidden)
        spec = _spec("hidden", "mse", weight=1.0)
        objective = Distillation(student, spec, "cross_entropy", teacher=None, channels=(16, teacher_hidden.shape[1]))
        return objective(Batch(image=batch.image, target=batch.target, maps=maps)).item()

    assert distilled(hidden) == 0
    assert distilled(2 * hidden) > 0
    assert distilled(torch.cat([hidden, hidden], dim=1)) == pytest.approx(0, abs=1e-8)
    assert distilled(2 * torch.cat([hidden, hidden], dim=1)) == pytest.approx(0, abs=1e-8)


def test_maps_meet_on_the_coarser_grid():
    fine, coarse = torch.arange(16.0).reshape(1, 1, 4, 4), torch.zeros(1, 2, 2, 2)
    student, teacher = on_one_grid(fine, coarse)
    assert student.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert teacher is coarse
