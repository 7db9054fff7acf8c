"""The training loop is reproducible, stops early, keeps the best epoch and explains failures."""

from __future__ import annotations

import math

import pytest
import torch

from kdsearch.config.networks import TeacherConfig, UNetSpec
from kdsearch.config.ranges import Choice, space_of
from kdsearch.config.training import TeacherTraining, TrainingSpec
from kdsearch.distill.batches import Images, TrainingData, strong_view
from kdsearch.distill.checkpoint import Best, TrainingState
from kdsearch.distill.loop import predict_logits, train
from kdsearch.distill.objective import Supervised
from kdsearch.distill.optimization import Slow, build_optimizer, build_schedule
from kdsearch.distill.result import TrainingFailed
from kdsearch.measure.scores import dice_per_image, predict_classes
from kdsearch.models.students import build_student
from kdsearch.trials.record import EpochReport
from tests.distill.discs import DATA


def _spec(**changes) -> TrainingSpec:
    return TeacherTraining(**{"epochs": 4, "batch_size": 8, "learning_rate": 1e-2} | changes)


def _student(seed: int = 0):
    return build_student(UNetSpec(width=4, depth=2, convs_per_stage=1, conv="standard"), seed=seed)


def _fit(spec, *, seed=0, model=None, data=DATA):
    model = model or _student(seed)
    reports = []
    training = train(model, Supervised(model, spec.supervised_loss), data, spec, seed=seed)
    while True:
        try:
            reports.append(next(training))
        except StopIteration as stop:
            return model, reports, stop.value


def test_network_learns():
    model, reports, fitted = _fit(_spec(epochs=12))
    assert reports[-1].dice > 0.8
    assert reports[-1].train_loss < 0.5 * reports[0].train_loss
    assert [report.epoch for report in reports] == list(range(1, 13))
    assert fitted.epochs == 12
    assert model.head.weight.isfinite().all()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_same_seed_gives_the_same_weights_to_the_bit(optimizer, schedule):
    spec = _spec(epochs=2, optimizer=optimizer, schedule=schedule, gradient_clip=1.0)
    (a, first, _), (b, second, _) = _fit(spec, seed=3), _fit(spec, seed=3)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert [r.train_loss for r in first] == [r.train_loss for r in second]
    other, _, _ = _fit(spec, seed=4)
    assert not torch.equal(a.head.weight, other.head.weight)


def test_global_random_state_does_not_affect_training():
    torch.manual_seed(1)
    a, _, _ = _fit(_spec(epochs=1))
    torch.manual_seed(2)
    b, _, _ = _fit(_spec(epochs=1))
    assert torch.equal(a.head.weight, b.head.weight)


def test_best_epoch_s_weights_are_kept():
    model, reports, fitted = _fit(_spec(epochs=6, learning_rate=5e-2, schedule="constant"))
    best = max(reports, key=lambda report: report.dice)
    assert fitted.best_epoch == best.epoch
    predicted = predict_classes(predict_logits(model, DATA.validation.pixels))
    dice = dice_per_image(predicted, (DATA.validation.masks > 0).long()).nanmean()
    assert dice.item() == pytest.approx(best.dice)


@pytest.mark.parametrize("monitor", ["dice", "loss"])
def test_training_stops_when_patience_runs_out(monitor):
    spec = _spec(epochs=50, learning_rate=1e-9, patience=2, monitor=monitor, schedule="constant")
    _, reports, fitted = _fit(spec)
    assert fitted.epochs == len(reports) < 50
    assert fitted.epochs - fitted.best_epoch == 2


def test_best_keeps_a_copy_of_the_first_best_epoch():
    model, spec = torch.nn.Linear(1, 1), _spec(monitor="dice")
    best = Best(spec)
    for epoch, dice in enumerate([0.2, 0.5, 0.5, 0.1], start=1):
        torch.nn.init.constant_(model.weight, epoch)
        best.offer(model, _report(epoch, dice))
    best.restore(model)
    assert best.epoch == 2
    assert model.weight.item() == 2


def _report(epoch: int, dice: float) -> EpochReport:
    return EpochReport(epoch=epoch, epochs=9, train_loss=1, validation_loss=1, dice=dice, learning_rate=1, seconds=1)


def test_non_finite_loss_stops_training_and_names_the_epoch():
    with pytest.raises(TrainingFailed, match=r"the loss became (nan|inf) in epoch 1"):
        _fit(_spec(learning_rate=1e30, optimizer="sgd", schedule="constant"))


def test_closing_the_generator_stops_the_training():
    model = _student()
    training = train(model, Supervised(model, "cross_entropy"), DATA, _spec(epochs=1000), seed=0)
    assert next(training).epoch == 1
    training.close()
    with pytest.raises(StopIteration):
        next(training)


def test_batch_larger_than_the_data_and_uneven_batches_work():
    for batch_size in (7, 31, 500):
        _, reports, _ = _fit(_spec(epochs=1, batch_size=batch_size))
        assert len(reports) == 1


def test_gradients_are_clipped():
    moved = []
    for clip in (None, 1e-6):
        model = _student()
        before = model.head.weight.clone()
        _fit(_spec(epochs=1, optimizer="sgd", schedule="constant", weight_decay=0.0, gradient_clip=clip), model=model)
        moved.append((model.head.weight - before).norm().item())
    assert moved[1] < 1e-3 * moved[0]


def test_schedules_have_the_expected_shapes():
    rates = {}
    for name in ("constant", "cosine", "onecycle"):
        spec = _spec(schedule=name, learning_rate=1.0)
        optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], spec)
        schedule = build_schedule(optimizer, spec, steps=100)
        rates[name] = []
        for _ in range(100):
            rates[name].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    assert set(rates["constant"]) == {1.0}
    assert rates["cosine"][0] == 1.0
    assert rates["cosine"][99] < 0.01
    assert max(rates["onecycle"]) == pytest.approx(1.0, abs=1e-3)
    assert rates["onecycle"][0] < 0.1
    assert rates["onecycle"][99] < 0.01


def test_validation_uses_unaugmented_images():
    model = _student().eval()
    logits = predict_logits(model, DATA.validation.pixels)
    nothing = _spec().augmentation.model_copy(update=dict.fromkeys(_spec().augmentation.model_dump(), 0.0))
    view = strong_view(DATA.validation.pixels, DATA.validation.masks, None, spec=nothing, generator=torch.Generator())
    torch.testing.assert_close(model(view.image), logits, atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_network_learns_on_a_gpu(precision):
    device = torch.device("cuda")
    train_images, validation = (
        Images(pixels=part.pixels.to(device), masks=part.masks.to(device), sources=part.sources)
        for part in (DATA.train, DATA.validation)
    )
    data = TrainingData(train=train_images, validation=validation)
    _, reports, _ = _fit(_spec(epochs=12, precision=precision), model=_student().to(device), data=data)
    assert reports[-1].dice > 0.8


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_slow_part_trains_at_its_fraction_of_the_learning_rate(optimizer, schedule):
    model = _student()
    spec = _spec(optimizer=optimizer, schedule=schedule)
    slow = Slow(part=model.encoder, fraction=0.1)
    state = TrainingState(model, None, spec, seed=0, steps=40, precision=None, slow=slow)
    for _ in range(39):
        usual, encoder = (group["lr"] for group in state.optimizer.param_groups)
        assert encoder == pytest.approx(0.1 * usual)
        state.optimizer.step()
        state.schedule.step()
    groups = [{id(p) for p in group["params"]} for group in state.optimizer.param_groups]
    assert groups[1] == {id(p) for p in model.encoder.parameters()}
    assert groups[0] | groups[1] == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(("teacher", "rate"), [({}, 0.1), ({"weights": "none"}, 1.0)])
def test_pretrained_encoder_has_a_tenth_of_the_learning_rate_by_default(teacher, rate):
    assert TeacherConfig(**teacher).encoder_lr_factor == rate
    assert TeacherConfig(**teacher, training=TeacherTraining(encoder_lr_factor=0.5)).encoder_lr_factor == 0.5


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_patience_with_a_falling_learning_rate_is_refused(schedule):
    with pytest.raises(ValueError, match=f"before the learning rate of schedule {schedule} has fallen"):
        TeacherTraining(patience=3, schedule=schedule)
    with pytest.raises(ValueError, match="before the learning rate of schedule"):
        space_of(TrainingSpec)(patience=3, schedule=Choice(choice=("constant", schedule)))
    assert TrainingSpec(patience=3, schedule="constant").patience == 3


@pytest.mark.parametrize("kept", ["best", "last"])
def test_averaged_weights_match_a_hand_computed_exponential_average(kept):
    """By hand: each step's weights and batch norm statistics, with a decay of exp(-1 / steps)."""
    spec = _spec(epochs=3, ema_epochs=0.5)
    newest, seen = 1 - math.exp(-1 / (0.5 * 4)), []

    class Watched(Supervised):
        """Records the network's state before each step."""

        def __call__(self, batch):
            seen.append({name: tensor.clone() for name, tensor in self._network.state_dict().items()})
            return super().__call__(batch)

    plain = _student()
    list(train(plain, Watched(plain, spec.supervised_loss), DATA, _spec(epochs=3), seed=0, kept="last"))
    states = [*seen[1:], plain.state_dict()]
    network = _student()
    reports = list(train(network, Supervised(network, spec.supervised_loss), DATA, spec, seed=0, kept=kept))
    expected = dict(states[0])
    averages = []
    for place, state in enumerate(states):
        if place:
            weight = max(newest, 1 / (place + 1))  # the mean, until enough states have been seen
            expected = {
                name: (1 - weight) * value + weight * state[name] if value.is_floating_point() else state[name]
                for name, value in expected.items()
            }
        averages.append(expected)
    epoch = 3 if kept == "last" else max(reports, key=lambda report: report.dice).epoch
    found = network.state_dict()
    for name, value in averages[4 * epoch - 1].items():
        if value.is_floating_point():
            torch.testing.assert_close(found[name], value, msg=name)


def test_averaged_weights_are_the_ones_validated():
    """Averaging changes only how epochs are validated; a long average forgets the random start."""
    spec = _spec(epochs=6, learning_rate=5e-2, schedule="constant")
    _, wild, _ = _fit(spec)
    _, calm, _ = _fit(spec.model_copy(update={"ema_epochs": 2.0}))
    assert [report.train_loss for report in calm] == [report.train_loss for report in wild], "training is unchanged"
    assert [report.dice for report in calm] != [report.dice for report in wild]
    long, reports, _ = _fit(spec.model_copy(update={"ema_epochs": 1000.0, "learning_rate": 1e-2}))
    start = _student().state_dict()
    assert not torch.allclose(long.state_dict()["head.weight"], start["head.weight"], atol=1e-3)
    assert reports[-1].dice > 0.3, "most weights in the average come from trained steps"
