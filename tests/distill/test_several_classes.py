"""Training on several classes, colors, ignored pixels and images that are not square."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from kdsearch.config.distillation import ANY_CHANNELS, LOSSES, DistillationSpec, is_softened
from kdsearch.config.networks import TeacherConfig, TimmSpec, UNetSpec
from kdsearch.config.task import IGNORED, Task
from kdsearch.config.training import AugmentationSpec, TrainingSpec
from kdsearch.distill import losses
from kdsearch.distill.batches import Images, TrainingData, UnlabelledPixels, strong_view
from kdsearch.distill.feature_maps import HiddenMaps
from kdsearch.distill.loop import draw_batch, predict_logits, with_unlabelled
from kdsearch.distill.objective import Distillation, Supervised
from kdsearch.measure.counts import count
from kdsearch.models.contract import normalize
from kdsearch.models.costs import cost_of
from kdsearch.models.students import build_student
from kdsearch.models.teacher import build_teacher

TASK = Task(height=32, width=48, channels=3, outputs=3)
SPEC = UNetSpec(width=4, depth=2, convs_per_stage=1, conv="standard")
STILL = AugmentationSpec(
    flip=0, rotation_degrees=0, scale=0, shift=0, crop=0, noise=0, dropout=0, brightness=0, contrast=0, saturation=0
)
PAIRS = [(path, loss) for path, possible in LOSSES.items() for loss in possible]


def _images(seed: int, count: int = 8) -> Images:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (count, 4, 6), generator=generator, dtype=torch.uint8)
    masks = masks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    pixels = torch.randint(0, 60, (count, 3, 32, 48), generator=generator, dtype=torch.uint8)
    for number in range(3):
        pixels[:, number] += (masks == number).to(torch.uint8) * 150
    masks[:, :8] = IGNORED
    return Images(pixels=pixels, masks=masks, sources=("s",) * count, classes=("a", "b"), ignores=True)


DATA = TrainingData(train=_images(0), validation=_images(1, 4))


def _student(width: int = 4, seed: int = 0):
    spec = SPEC.model_copy(update={"width": width})
    return build_student(spec, channels=TASK.channels, outputs=TASK.outputs, seed=seed)


def _objective(path, loss, boundary=0.0):
    student = _student()
    teacher = _student(width=4 if path == "hidden" and loss not in ANY_CHANNELS else 6, seed=1).eval()
    softened = {"temperature": 2.0} if is_softened(path, loss) else {}
    term = {"path": path, "loss": loss, "teacher_view": "same", "weight": 1.0, **softened}
    if boundary:
        term["boundary"] = boundary
    spec = DistillationSpec.model_validate({"terms": (term,), "loss_mix": "add"})
    hidden = None if path == "logits" else {None: HiddenMaps(teacher, normalize(DATA.train.pixels))}
    return student, Distillation(
        student, spec, "dice_cross_entropy", teacher=teacher, hidden=hidden, student_channels=student.map_channels
    )


def _batch(data=DATA, spec=STILL):
    training = TrainingSpec(augmentation=spec)
    return draw_batch(data, torch.arange(8), training, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("path", "loss"), PAIRS)
def test_every_term_trains_a_student_of_several_classes(path, loss):
    student, objective = _objective(path, loss)
    value = objective(_batch())
    value.backward()
    assert torch.isfinite(value)
    assert student.encoder[0][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("path", "loss"), [("none", ""), *[pair for pair in PAIRS if pair[0] == "logits"]])
def test_logits_at_ignored_pixels_change_no_loss(path, loss):
    student, objective = (_student(), None) if path == "none" else _objective(path, loss)
    objective = objective or Supervised(student, "dice_cross_entropy")
    batch = _batch()
    shift = torch.zeros(1, 3, 32, 48)
    shift[:, 1, :8] = 5.0
    plain = student.outputs

    def shifted(image):
        found = plain(image)
        return dataclasses.replace(found, logits=found.logits + shift)

    with torch.no_grad():
        student.eval()
        before = objective(batch)
        student.outputs = shifted
        torch.testing.assert_close(objective(batch), before, rtol=1e-4, atol=1e-5)
        shift[:] = shift.roll(12, dims=2)
        assert not torch.isclose(objective(batch), before, rtol=1e-4)


def test_supervised_losses_equal_those_of_only_the_pixels_that_count():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 10, generator=generator)
    target = torch.randint(0, 3, (2, 6, 10), generator=generator)
    counts = torch.ones(2, 1, 6, 10)
    counts[..., 7:] = 0
    for outputs in (3, 1):
        some, numbers = logits[:, :outputs], target.clamp_max(max(1, outputs - 1))
        found = losses.cross_entropy(some, numbers, counts)
        torch.testing.assert_close(found, losses.cross_entropy(some[..., :7], numbers[..., :7]))
        ones = torch.ones_like(counts)
        torch.testing.assert_close(losses.soft_dice(some, numbers, ones), losses.soft_dice(some, numbers))


def test_masks_of_several_classes_are_moved_with_the_image_and_keep_their_numbers():
    spec = AugmentationSpec(rotation_degrees=45, scale=0.3, noise=0, dropout=0, brightness=0, contrast=0, saturation=0)
    batch = _batch(spec=spec)
    brightest = batch.weak.argmax(dim=1)
    known = batch.counts[:, 0] > 0
    assert set(batch.target.unique().tolist()) == {0, 1, 2}
    assert (brightest[known] == batch.target[known]).float().mean() > 0.9
    assert 0.1 < 1 - known.float().mean() < 0.4


def test_colors_change_only_the_student_s_view_and_only_of_color_images():
    pixels = DATA.train.pixels
    generator = torch.Generator().manual_seed(0)
    usual = STILL.model_copy(update={"brightness": None, "contrast": None, "saturation": None})
    view = strong_view(pixels, DATA.train.masks, None, spec=usual, generator=generator, binary=False)
    assert not torch.equal(view.image, view.weak)
    gray = strong_view(pixels[:, :1], DATA.train.masks, None, spec=usual, generator=generator, binary=False)
    assert torch.equal(gray.image, gray.weak)
    ranges = (view.image - view.weak).abs().amax(dim=(1, 2, 3))
    assert len(set(ranges.tolist())) == len(ranges), "each image is changed by its own factors"


@pytest.mark.parametrize("saturation", [0.0, 1.0])
def test_saturation_keeps_the_brightness(saturation):
    pixels = torch.full((4, 3, 8, 8), 120, dtype=torch.uint8)
    pixels[:, 0] = 140
    spec = STILL.model_copy(update={"saturation": saturation})
    generator = torch.Generator().manual_seed(0)
    view = strong_view(pixels, torch.zeros(4, 8, 8, dtype=torch.uint8), None, spec=spec, generator=generator)
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close((view.image * luma).sum(1), (view.weak * luma).sum(1), atol=1e-5, rtol=0)
    assert torch.equal(view.image, view.weak) == (saturation == 0)


@pytest.mark.parametrize(
    "spec", [SPEC, TimmSpec(family="timm", encoder="resnet18", weights="none", depth=3, width=4)], ids=["unet", "timm"]
)
@pytest.mark.parametrize(("channels", "outputs"), itertools.product((1, 3), (1, 4)))
def test_computed_cost_is_that_of_the_network(spec, channels, outputs):
    task = Task(height=32, width=64, channels=channels, outputs=outputs)
    network = build_student(spec, channels=channels, outputs=outputs)
    assert network.eval()(torch.zeros(task.input_shape)).shape == (1, outputs, 32, 64)
    assert cost_of(spec, task) == count(network, task)


def test_color_statistics_standardize_the_training_images():
    student = _student()
    student.statistics.measure(DATA.train.pixels)
    seen = student.statistics(normalize(DATA.train.pixels))
    torch.testing.assert_close(seen.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_encoder_receives_each_color_in_the_range_its_weights_were_trained_on():
    config = TeacherConfig(encoder="resnet18", encoder_depth=3, weights="none")
    teacher = build_teacher(config, TASK).eval()
    seen = []
    teacher.network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = predict_logits(teacher, DATA.train.pixels[:2])
    assert logits.shape == (2, 3, 32, 48)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(seen[0], (DATA.train.pixels[:2] / 255 - mean) / std, atol=1e-5, rtol=0)


def test_padding_of_unlabelled_images_does_not_count():
    padding = torch.zeros(4, 32, 48, dtype=torch.uint8)
    padding[:, :, 40:] = IGNORED
    more = UnlabelledPixels(pixels=DATA.validation.pixels, fraction=0.5, padding=padding)
    data = dataclasses.replace(DATA, unlabelled=more)
    training = TrainingSpec(augmentation=STILL)
    generator = torch.Generator().manual_seed(0)
    batch = with_unlabelled(_batch(), data, torch.arange(4), training, generator)
    assert batch.counts.shape == (12, 1, 32, 48)
    assert not batch.counts[8:, :, :, 40:].any()
    assert batch.counts[8:, :, :, :40].all()
    assert torch.equal(batch.known_counts, _batch().counts)
