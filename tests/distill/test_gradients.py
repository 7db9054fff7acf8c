"""A step's gradients are the same whether it is recorded as a CUDA graph or run eagerly."""

from __future__ import annotations

import copy
import logging

import pytest
import torch

from kdsearch.config.distillation import LOSSES, DistillationSpec, is_softened
from kdsearch.config.networks import TimmSpec, UNetSpec
from kdsearch.config.training import SupervisedLoss
from kdsearch.distill.batches import Batch
from kdsearch.distill.feature_maps import HiddenMaps
from kdsearch.distill.objective import Distillation, Supervised
from kdsearch.distill.optimization import WARM_UP, Gradients
from kdsearch.models.students import build_student

SIZE = 32
PAIRS = [(path, loss, view) for path, possible in LOSSES.items() for loss in possible for view in ("weak", "same")]
KIND: SupervisedLoss = "dice_cross_entropy"
CUDA = torch.device("cuda")


def _batch(count: int, seed: int, *, labelled: int | None = None) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(count, 1, SIZE, SIZE, generator=generator).cuda()
    target = (torch.randn(count, SIZE, SIZE, generator=generator) > 0.5).long().cuda()
    logits = 2 * torch.randn(count, 1, SIZE, SIZE, generator=generator).cuda()
    return Batch(image=image, weak=image + 0.1, target=target, teacher_logits=logits, labelled=labelled)


def _student(seed: int = 0):
    return build_student(UNetSpec(width=4, depth=2, convs_per_stage=1), seed=seed, device=CUDA)


def _distilling(student, path, loss, view):
    """A distillation whose teacher has the student's shape."""
    softened = {"temperature": 2.0} if is_softened(path, loss) else {}
    term = {"path": path, "loss": loss, "teacher_view": view, "weight": 0.7, **softened}
    teacher = _student(seed=1).eval()
    images = torch.randn(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(9)).cuda()
    return Distillation(
        student,
        DistillationSpec.model_validate({"terms": (term,), "loss_mix": "add"}),
        KIND,
        teacher=teacher,
        hidden=None if path == "logits" else {None: HiddenMaps(teacher, images, stride=None, offset=0.25)},
        student_channels=student.map_channels,
    ).to(CUDA)


def _gradients(objective, parameters, *, graphs, precision=None):
    scaler = torch.amp.GradScaler("cuda", enabled=precision == torch.float16)
    return Gradients(objective, parameters, scaler, device=CUDA, precision=precision, graphs=graphs)


def _assert_recorded_as_computed(objective, parameters, batches, *, precision=None, shapes=1):
    """Uses the same weights for every batch; batch norm statistics have no effect in training mode."""
    computed, recorded = (
        _gradients(objective, parameters, graphs=graphs, precision=precision) for graphs in (False, True)
    )
    for batch in batches:
        loss = float(computed(batch))
        expected = [copy.deepcopy(parameter.grad) for parameter in parameters]
        assert float(recorded(batch)) == pytest.approx(loss, rel=1e-3)
        for parameter, gradient in zip(parameters, expected, strict=True):
            if gradient is None:
                assert parameter.grad is None
            else:
                torch.testing.assert_close(parameter.grad, gradient, rtol=1e-2, atol=1e-4)
    assert recorded.recorded == shapes


@pytest.mark.gpu
@pytest.mark.parametrize(("path", "loss", "view"), PAIRS)
def test_recorded_gradients_equal_computed_ones_for_every_loss(path, loss, view):
    student = _student()
    objective = _distilling(student, path, loss, view)
    parameters = [*student.parameters(), *objective.parameters()]
    _assert_recorded_as_computed(objective, parameters, [_batch(8, seed) for seed in range(WARM_UP + 3)])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
def test_each_batch_shape_is_recorded_separately(precision):
    student = _student()
    objective, parameters = Supervised(student, KIND), list(student.parameters())
    batches = [_batch(8 - seed % 2, seed) for seed in range(2 * WARM_UP + 6)]
    _assert_recorded_as_computed(objective, parameters, batches, precision=precision, shapes=2)


@pytest.mark.gpu
def test_steps_with_unlabelled_images_are_recorded_too():
    student = _student()
    objective = _distilling(student, "logits", "dml", "weak")
    batches = [_batch(8, seed, labelled=5) for seed in range(WARM_UP + 3)]
    _assert_recorded_as_computed(objective, list(student.parameters()), batches)


@pytest.mark.gpu
def test_students_with_a_timm_encoder_are_recorded_too():
    spec = TimmSpec(family="timm", weights="none", depth=3, width=8)
    student = build_student(spec, seed=0, device=CUDA)
    objective = Supervised(student, KIND)
    _assert_recorded_as_computed(objective, list(student.parameters()), [_batch(8, s) for s in range(WARM_UP + 3)])


@pytest.mark.gpu
def test_unrecordable_step_runs_eagerly_with_a_warning(caplog):
    student = _student()
    supervised = Supervised(student, KIND)

    def looks_at_its_loss(batch):
        loss = supervised(batch)
        return loss if loss.item() > 0 else 2 * loss

    gradients = _gradients(looks_at_its_loss, list(student.parameters()), graphs=True)
    with caplog.at_level(logging.WARNING):
        found = [float(gradients(_batch(8, seed))) for seed in range(WARM_UP + 3)]
    assert all(value > 0 for value in found)
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert [record.message for record in caplog.records if "cannot record the step as a CUDA graph" in record.message]
    assert not gradients.recorded
