"""Every path and loss, and the parts that must never be trained."""

from __future__ import annotations

import itertools

import pytest
import torch

from kdsearch.config.distillation import ANY_CHANNELS, LOSSES, DistillationSpec, is_softened
from kdsearch.config.networks import UNetSpec
from kdsearch.distill import losses
from kdsearch.distill.batches import Batch
from kdsearch.distill.feature_maps import HiddenMaps
from kdsearch.distill.losses import TERM_LOSSES
from kdsearch.distill.objective import Distillation, Supervised, on_one_grid, regressor
from kdsearch.models.students import build_student

PAIRS = [(path, loss) for path, possible in LOSSES.items() for loss in possible]
GRID = [
    (*pair, *rest)
    for pair, rest in itertools.product(PAIRS, itertools.product(("same", "weak"), ("add", "interpolate")))
]


class _Teacher(torch.nn.Module):
    """A student used as a teacher."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def outputs(self, image):
        return self.network.outputs(image)

    def features(self, image):
        return self.network.features(image)


def _student(width: int = 4, classes: int = 1):
    return build_student(
        UNetSpec(width=width, depth=2, convs_per_stage=1, conv="standard"), outputs=classes, seed=width
    )


def _spec(path="logits", loss="kld", view="weak", loss_mix="interpolate", weight=0.5) -> DistillationSpec:
    return DistillationSpec.model_validate(
        {"terms": (_term(path, loss, view=view, weight=weight),), "loss_mix": loss_mix}
    )


def _term(path, loss, *, view="weak", weight=1.0) -> dict:
    softened = {"temperature": 2.0} if is_softened(path, loss) else {}
    return {"path": path, "loss": loss, "teacher_view": view, "weight": weight, **softened}


def _batch(*, logits: torch.Tensor | None = None, classes: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(0)
    weak = torch.randn(2, 1, 16, 16, generator=generator)
    target = torch.randint(0, max(2, classes), (2, 16, 16), generator=generator)
    return Batch(image=weak + 0.1, weak=weak, target=target, teacher_logits=logits)


def _objective(student, teacher, spec, kind="dice_cross_entropy", **settings):
    hidden = None if spec.path == "logits" else {None: HiddenMaps(teacher, torch.randn(4, 1, 16, 16))}
    channels = student.map_channels
    return Distillation(student, spec, kind, teacher=teacher, hidden=hidden, student_channels=channels, **settings)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("path", "loss", "view", "loss_mix"), GRID)
def test_every_variant_trains_the_student_and_never_the_teacher(path, loss, view, loss_mix, classes):
    student = _student(classes=classes)
    equal = path == "hidden" and loss not in ANY_CHANNELS
    teacher = _Teacher(_student(width=4 if equal else 6, classes=classes)).eval()
    spec = _spec(path, loss, view, loss_mix, weight=1.0)
    objective = _objective(student, teacher, spec)
    batch = _batch(classes=classes)
    objective(batch).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.encoder[0][0].weight.grad.abs().sum() > 0
    plain = torch.autograd.grad(Supervised(student, "dice_cross_entropy")(batch), student.encoder[0][0].weight)[0]
    assert not torch.allclose(plain, student.encoder[0][0].weight.grad)
    assert (objective.terms[0].regressor is not None) == (path == "regressor")
    if objective.terms[0].regressor is not None:
        assert all(parameter.grad is not None for parameter in objective.terms[0].regressor.parameters())


def test_objective_owns_only_the_regressor_s_parameters():
    student, teacher = _student(), _Teacher(_student(width=6))
    objective = _objective(student, teacher, _spec("regressor"))
    owned = {id(parameter) for parameter in objective.parameters()}
    assert owned == {id(parameter) for parameter in objective.terms[0].regressor.parameters()}
    assert not owned & {id(parameter) for parameter in student.parameters()}


def test_regressor_is_two_convolutions_and_a_relu():
    layers = [type(layer).__name__ for layer in regressor(4, 9)]
    assert layers == ["Conv2d", "ReLU", "Conv2d"]
    assert regressor(4, 9)(torch.zeros(1, 4, 2, 2)).shape == (1, 9, 2, 2)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_shared_weight_divides_the_loss_between_unscaled_teacher_and_mask_terms(weight):
    student = _student().eval()
    batch = _batch(logits=3 * torch.randn(2, 1, 16, 16))
    loss = _objective(student, None, _spec("logits", "mse", weight=weight), "cross_entropy", logit_std=3.0)(batch)
    supervised = Supervised(student, "cross_entropy")(batch)
    expected = weight * losses.logits_mse(student(batch.image), batch.teacher_logits) + (1 - weight) * supervised
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_added_weight_keeps_the_full_supervised_loss(weight):
    student = _student().eval()
    batch = _batch(logits=3 * torch.randn(2, 1, 16, 16))
    loss = _objective(student, None, _spec("logits", "mse", loss_mix="add", weight=weight), logit_std=3.0)(batch)
    distilled = losses.logits_mse(student(batch.image) / 3, batch.teacher_logits / 3)
    expected = (
        Supervised(student, "dice_cross_entropy")(batch) + weight * TERM_LOSSES["mse"].scales["logits"] * distilled
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("path", ["hidden", "regressor"])
def test_only_the_added_loss_ignores_the_scale_of_teacher_maps(path):
    class Louder(_Teacher):
        def features(self, image):
            return tuple(7 * maps + 3 for maps in super().features(image))

    student, network = _student().eval(), _student().eval()
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(4))  # one channel is zero for these
    for loss_mix, same in (("add", True), ("interpolate", False)):
        found = []
        for teacher in (_Teacher(network), Louder(network)):
            torch.manual_seed(0)
            hidden = HiddenMaps(teacher, images)
            objective = Distillation(
                student,
                _spec(path, "mse", loss_mix=loss_mix),
                "cross_entropy",
                hidden={None: hidden},
                student_channels={4: 16},
            )
            found.append(objective(_batch()).item())
        assert (found[0] == pytest.approx(found[1], rel=1e-3)) == same


def test_attention_compares_positions_and_hidden_compares_channels():
    student = _student().eval()
    batch = _batch()

    class Teacher(_Teacher):
        def __init__(self, change):
            super().__init__(student)
            self.change = change

        def features(self, image):
            return tuple(self.change(maps) for maps in super().features(image))

    def distilled(path, change) -> float:
        spec = _spec(path, "mse", view="same", weight=1.0)
        hidden = HiddenMaps(Teacher(change), batch.image)
        hidden.offset = 0.0
        return Distillation(student, spec, "cross_entropy", hidden={None: hidden})(batch).item()

    assert distilled("hidden", lambda maps: maps) == 0
    assert distilled("hidden", lambda maps: 2 * maps) > 0
    assert distilled("hidden", lambda maps: maps.flip(1)) > 0
    assert distilled("attention", lambda maps: 2 * torch.cat([maps, maps], dim=1)) == pytest.approx(0, abs=1e-8)
    assert distilled("attention", lambda maps: maps.flip(1)) == pytest.approx(0, abs=1e-8)
    assert distilled("attention", lambda maps: maps.flip(3)) > 0


@pytest.mark.parametrize(("view", "name"), [("weak", "weak"), ("same", "image")])
def test_teacher_receives_its_configured_view(view, name):
    student = _student().eval()
    batch = _batch()
    seen = []

    class Teacher(_Teacher):
        def features(self, image):
            seen.append(image)
            return super().features(image)

    hidden = HiddenMaps(Teacher(_student(width=6).eval()), batch.image)
    hidden.offset = 0.0
    Distillation(student, _spec("attention", "mse", view=view), "cross_entropy", hidden={None: hidden})(batch)
    assert torch.equal(seen[-1], getattr(batch, name))


def test_losses_are_computed_in_float32_under_autocast():
    student = _student()
    batch = _batch(logits=torch.randn(2, 1, 16, 16))
    for objective in (
        Supervised(student, "dice_cross_entropy"),
        _objective(student, None, _spec("logits", "kld")),
        _objective(student, _Teacher(_student(width=6)), _spec("regressor", "mse", loss_mix="add")),
    ):
        with torch.autocast("cpu", torch.bfloat16):
            assert student(batch.image).dtype == torch.bfloat16
            assert objective(batch).dtype == torch.float32


def test_maps_are_compared_on_the_coarser_grid():
    fine, coarse = torch.arange(16.0).reshape(1, 1, 4, 4), torch.zeros(1, 2, 2, 2)
    student, teacher = on_one_grid(fine, coarse)
    assert student.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert teacher is coarse


def test_terms_are_summed_with_their_weights():
    student, teacher = _student().eval(), _Teacher(_student(width=6)).eval()
    hidden = HiddenMaps(teacher, torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    batch = _batch(logits=3 * torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)))
    pairs = [("logits", "dml", 0.7), ("attention", "mse", 0.2), ("logits", "kld", 0.1)]

    def loss(*terms) -> float:
        spec = DistillationSpec.model_validate(
            {"terms": tuple(_term(on, loss, weight=weight) for on, loss, weight in terms), "loss_mix": "add"}
        )
        return Distillation(student, spec, "dice_cross_entropy", hidden={None: hidden})(batch).item()

    supervised = Supervised(student, "dice_cross_entropy")(batch).item()
    assert loss(*pairs) - supervised == pytest.approx(sum(loss(pair) - supervised for pair in pairs), rel=1e-5)


def test_each_term_uses_the_teacher_output_for_its_view():
    student, teacher = _student().eval(), _Teacher(_student(width=6)).eval()
    batch = _batch(logits=torch.zeros(2, 1, 16, 16))

    def distilled(view: str) -> float:
        spec = DistillationSpec.model_validate({"terms": (_term("logits", "mse", view=view),), "loss_mix": "add"})
        return Distillation(student, spec, "cross_entropy", teacher=teacher)(batch).item()

    both = DistillationSpec.model_validate(
        {"terms": tuple(_term("logits", "mse", view=view) for view in ("weak", "same")), "loss_mix": "add"}
    )
    plain = Supervised(student, "cross_entropy")(batch).item()
    found = Distillation(student, both, "cross_entropy", teacher=teacher)(batch).item()
    assert found - plain == pytest.approx(distilled("weak") + distilled("same") - 2 * plain, rel=1e-5)
