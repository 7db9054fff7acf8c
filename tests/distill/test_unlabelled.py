"""Students learn from the teacher's predictions on unlabelled images, and from labeled images as before."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load

from kdsearch.config.distillation import DistillationSpec
from kdsearch.config.ranges import values_of
from kdsearch.config.training import TrainingSpec
from kdsearch.data.cache import load_dataset, load_unlabelled
from kdsearch.data.splits import split
from kdsearch.distill import losses
from kdsearch.distill.batches import UnlabelledPixels, training_data
from kdsearch.distill.feature_maps import HiddenMaps
from kdsearch.distill.loop import train
from kdsearch.distill.losses import TERM_LOSSES
from kdsearch.distill.materials import Materials
from kdsearch.distill.objective import Distillation, Supervised, on_one_grid
from kdsearch.distill.student import Trainer
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import teacher_folder
from kdsearch.models.contract import normalize
from kdsearch.models.students import build_student
from kdsearch.search.recipes import choose
from tests.distill.teachers import teach
from tests.search.setups import finish

MORE = "  unlabelled: [{reader: phantom, name: more, seed: 5, images: 12}]\n"


@pytest.fixture
def study(study_file):
    """A tiny study with twelve unlabelled phantoms."""
    from kdsearch.config.load import load_study
    from tests.tiny import TINY

    return load_study(study_file(TINY.replace("  size: 32\n", f"  size: 32\n{MORE}")))


@pytest.fixture(scope="module")
def home(tiny_home, tmp_path_factory):
    return shutil.copytree(tiny_home, tmp_path_factory.mktemp("unlabelled") / "home")


@pytest.fixture
def materials(study, home):
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_on_negatives=False)
    data = training_data(dataset, splits, torch.device("cpu"))
    teacher = teach(study, data, teacher_folder(TeacherRecipe.of(study), splits.fingerprint, home))
    part = load_unlabelled(study.data, home, dataset, splits)
    return Materials(dataset=dataset, splits=splits, trained_teacher=teacher, unlabelled=part)


def _recipe(study, *terms):
    recipe = choose(study, lambda _name, value: values_of(value)[0], seed=0)
    if not terms:
        return recipe
    return recipe.model_copy(
        update={"distillation": DistillationSpec.model_validate({"terms": terms, "loss_mix": "add"})}
    )


DML = {"path": "logits", "loss": "dml", "teacher_view": "weak", "weight": 1.0}


def _weights(materials, recipe):
    trainer = Trainer(materials.training_data(torch.device("cpu")), materials.trained_teacher)
    return load(finish(trainer.distil(recipe))[1].weights)


def _equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_undistilled_student_ignores_unlabelled_images(study, materials):
    without = dataclasses.replace(materials, unlabelled=None)
    assert _equal(_weights(materials, _recipe(study)), _weights(without, _recipe(study)))


@pytest.mark.parametrize(
    "term",
    [
        DML,
        DML | {"teacher_view": "same"},
        DML | {"boundary": 2.0},
        {"path": "attention", "loss": "mse"},
        {"path": "regressor", "loss": "pkd"},
    ],
    ids=lambda term: "-".join(map(str, term.values())),
)
def test_distilled_student_uses_unlabelled_images_reproducibly(study, materials, term):
    recipe = _recipe(study, term)
    first = _weights(materials, recipe)
    assert _equal(first, _weights(materials, recipe))
    assert not _equal(first, _weights(dataclasses.replace(materials, unlabelled=None), recipe))


def test_student_whose_only_loss_needs_masks_ignores_unlabelled_images(study, materials):
    recipe = _recipe(study, {"path": "hidden", "loss": "region"})
    assert _equal(_weights(materials, recipe), _weights(dataclasses.replace(materials, unlabelled=None), recipe))


def test_worker_opens_the_driver_s_unlabelled_images(materials, home):
    opened = materials.place(home).open()
    assert opened.key == materials.key
    assert opened.key != dataclasses.replace(materials, unlabelled=None).key
    packed = materials.packed()
    assert packed.key == materials.key
    for other in (opened, packed):
        assert torch.equal(
            other.training_data(torch.device("cpu")).unlabelled.pixels,
            materials.training_data(torch.device("cpu")).unlabelled.pixels,
        )


def test_another_split_selects_other_unlabelled_images_and_has_no_teacher(materials):
    """The first unlabelled image is grouped with a test image, the second with a training image."""
    ids = [materials.dataset.infos[part[0]].id for part in (materials.splits.test, materials.splits.train)]
    whole = dataclasses.replace(materials.unlabelled.whole, together=((ids[0],), (ids[1],), *((),) * 10))
    known = dataclasses.replace(materials, unlabelled=dataclasses.replace(materials.unlabelled, whole=whole))
    held = known.with_splits(known.splits)
    assert held.trained_teacher is None
    assert held.unlabelled.positions == tuple(range(1, 12))
    swapped = dataclasses.replace(known.splits, train=known.splits.test, test=known.splits.train)
    assert known.with_splits(swapped).unlabelled.positions == (0, *range(2, 12))


class _Counting:
    """Collects the batches; trains with only the masks."""

    def __init__(self, network):
        self._supervised, self.batches = Supervised(network, "cross_entropy"), []

    def __call__(self, batch):
        self.batches.append(batch)
        return self._supervised(
            dataclasses.replace(batch, image=batch.image[: batch.labelled], target=batch.known_target)
        )


@pytest.mark.parametrize(
    ("fraction", "sizes"),
    [
        (0.5, [(14, 7), (12, 6), (12, 6), (12, 6)]),
        (0.25, [(9, 7), (8, 6), (8, 6), (8, 6)]),
        (0.01, [(8, 7), (7, 6), (7, 6), (7, 6)]),
        (0.75, [(28, 7), (24, 6), (24, 6), (24, 6)]),
    ],
)
def test_unlabelled_images_extend_batches_without_changing_the_step_count(materials, fraction, sizes):
    batches = _batches(materials.training_data(torch.device("cpu")), fraction=fraction)
    assert [(len(batch.image), batch.labelled) for batch in batches] == 2 * sizes


def test_labeled_batches_equal_those_of_the_undistilled_twin(materials):
    """So the difference between a member and its twin is due to distillation, not the number of masks."""
    data = materials.training_data(torch.device("cpu"))
    student = _batches(data)
    twin = _batches(dataclasses.replace(data, unlabelled=None))
    for one, other in zip(student, twin, strict=True):
        assert torch.equal(one.image[: one.labelled], other.image)
        assert torch.equal(one.known_target, other.target)


def _batches(data, *, fraction=0.5):
    """The batches of two epochs; 25 images make four steps of eight."""
    assert len(data.train) == 25
    if data.unlabelled is not None:
        data = dataclasses.replace(data, unlabelled=dataclasses.replace(data.unlabelled, fraction=fraction))
    network = build_student(_student_spec())
    counting = _Counting(network)
    finish(train(network, counting, data, TrainingSpec(epochs=2, batch_size=8), seed=0))
    return counting.batches


def _student_spec():
    from kdsearch.config.networks import UNetSpec

    return UNetSpec(width=4, depth=2, convs_per_stage=1, conv="standard")


def _batch_of(materials, *, count=3):
    """Three images with masks and three without, unaugmented, with the teacher's logits."""
    from kdsearch.distill.batches import Batch
    from kdsearch.distill.loop import predict_logits

    data = materials.training_data(torch.device("cpu"))
    gray = torch.cat([data.train.pixels[:count], data.unlabelled.pixels[:count]])
    masks = (data.train.masks[:count] > 0).long()
    logits = predict_logits(materials.teacher.load(torch.device("cpu")), gray)
    image = normalize(gray)
    target = torch.cat([masks, torch.full_like(masks, 99)])  # these values must not be used
    return Batch(image=image, weak=image, target=target, teacher_logits=logits, labelled=count)


def _loss(materials, batch, term):
    student = build_student(_student_spec()).eval()
    teacher = materials.teacher.load(torch.device("cpu"))
    spec = DistillationSpec.model_validate({"terms": (term,), "loss_mix": "add"})
    hidden = {None: HiddenMaps(teacher, batch.image)}
    with torch.no_grad():
        return student, Distillation(student, spec, "dice_cross_entropy", teacher=teacher, hidden=hidden)(batch).item()


def test_supervised_loss_covers_labeled_images_and_distillation_all(materials):
    batch = _batch_of(materials)
    student, found = _loss(materials, batch, DML | {"weight": 0.5})
    logits = student(batch.image)
    supervised = losses.supervised(logits[:3], batch.target[:3], "dice_cross_entropy")
    distilled = losses.logits_dml(logits, batch.teacher_logits, "dice_cross_entropy")
    assert found == pytest.approx((supervised + 0.5 * distilled).item(), rel=1e-5)


def test_outlines_come_from_masks_or_else_from_the_teacher(materials):
    batch = _batch_of(materials)
    student, found = _loss(materials, batch, DML | {"boundary": 3.0})
    logits = student(batch.image)
    marked = torch.cat([batch.target[:3], (batch.teacher_logits[3:, 0] > 0).long()])
    weights = losses.outline_weights(marked, 3.0)
    distilled = losses.logits_dml(logits, batch.teacher_logits, "dice_cross_entropy", weights)
    supervised = losses.supervised(logits[:3], batch.target[:3], "dice_cross_entropy")
    assert found == pytest.approx((supervised + distilled).item(), rel=1e-5)


def test_region_covers_only_images_with_masks(materials):
    batch = _batch_of(materials)
    alone = dataclasses.replace(
        batch, image=batch.image[:3], weak=batch.weak[:3], target=batch.target[:3], labelled=None
    )
    term = {"path": "hidden", "loss": "region"}
    student, both = _loss(materials, batch, term)
    supervised = losses.supervised(student(batch.image[:3]), batch.target[:3], "dice_cross_entropy")
    teacher = materials.teacher.load(torch.device("cpu"))
    hidden = HiddenMaps(teacher, batch.image)
    maps = on_one_grid(losses.standardized(student.features(batch.image)[-1])[:3], hidden.standardized(alone.image))
    expected = losses.maps_region(*maps, alone.target)
    scale = TERM_LOSSES["region"].scales["hidden"]
    assert both == pytest.approx((supervised + scale * expected).item(), rel=1e-4)


def test_unlabelled_images_repeat_if_there_are_too_few_for_a_step(materials):
    data = materials.training_data(torch.device("cpu"))
    one = UnlabelledPixels(pixels=data.unlabelled.pixels[:1], fraction=0.5)
    network = build_student(_student_spec())
    counting = _Counting(network)
    finish(
        train(
            network, counting, dataclasses.replace(data, unlabelled=one), TrainingSpec(epochs=1, batch_size=8), seed=0
        )
    )
    assert [len(batch.image) - batch.labelled for batch in counting.batches] == [7, 6, 6, 6]
