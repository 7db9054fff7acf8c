"""The teacher computes maps once per batch of images, and they are never reused for other images."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load

from kdsearch.distill.feature_maps import HiddenMaps, KnownMaps, MapBudget
from kdsearch.distill.materials import Trainers
from kdsearch.distill.student import Trainer
from tests.distill.recipes import recipe_of
from tests.search.setups import finish

SIZE = 2 * 3 * 4 * 4 * 4
"""Bytes of the maps of two images."""


class Counting:
    """Returns three channels of the images' own values and counts its calls."""

    def __init__(self):
        self.asked = 0

    def features(self, images):
        self.asked += 1
        return [torch.cat([images, 2 * images, -images], dim=1)]


def _images(seed: int, *, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def _get(known, teacher, images):
    return known.get(images, lambda images: teacher.features(images)[-1])


def test_maps_of_equal_images_are_computed_once():
    known, teacher = KnownMaps(MapBudget()), Counting()
    first, second = (_get(known, teacher, _images(0)) for _ in range(2))
    assert teacher.asked == 1
    assert torch.equal(first, second)


def test_other_images_and_shapes_are_computed_separately():
    known, teacher = KnownMaps(MapBudget()), Counting()
    last = _images(0).clone()
    last[-1, -1, -1, -1] += 1e-6
    for images in (_images(0), last, _images(0).reshape(1, 1, 4, 8)):
        assert torch.equal(_get(known, teacher, images)[:, :1], images)
    assert teacher.asked == 3


def test_maps_beyond_the_budget_are_recomputed_and_others_are_cached():
    known, teacher = KnownMaps(MapBudget(2 * SIZE + 1)), Counting()
    for seed in (0, 1, 2, 0, 1, 2):
        assert torch.equal(_get(known, teacher, _images(seed))[:, :1], _images(seed))
    assert teacher.asked == 4


@pytest.mark.parametrize(("fits", "more"), [(1, 1), (2, 0)])
def test_make_room_evicts_maps_only_if_the_budget_is_full(fits, more):
    budget, teacher = MapBudget(fits * SIZE), Counting()
    known = KnownMaps(budget)
    for seed in (0, 1):
        _get(known, teacher, _images(seed))
    budget.make_room()
    for _ in range(2):
        _get(known, teacher, _images(1))
    assert teacher.asked == 2 + more


def test_all_maps_of_a_process_share_one_budget():
    budget, teacher = MapBudget(3 * SIZE), Counting()
    first, second = KnownMaps(budget), KnownMaps(budget)
    for known in (first, second):
        for seed in (0, 1):
            _get(known, teacher, _images(seed))
    assert (first.bytes, second.bytes) == (2 * SIZE, SIZE)
    budget.make_room()
    assert (first.bytes, second.bytes) == (0, 0)
    _get(second, teacher, _images(0))
    del first
    assert budget.takes(2 * SIZE), "maps that are no longer referenced use no budget"


def test_maps_on_another_device_are_not_cached():
    known, teacher = KnownMaps(MapBudget()), Counting()
    for _ in range(2):
        assert _get(known, teacher, _images(0).to("meta")).is_meta
    assert teacher.asked == 2


def test_maps_computed_for_measurement_are_not_cached():
    hidden = HiddenMaps(Counting(), _images(0, count=64), offset=0.0)
    assert hidden.known.get(_images(0, count=64), torch.neg).equal(-_images(0, count=64))


@pytest.fixture
def training(bench):
    return bench.materials.training_data(torch.device("cpu")), bench.materials.teacher


@dataclasses.dataclass
class Watched:
    """Wraps a teacher and counts how often its network computes maps."""

    teacher: object
    asked: int = 0

    def logits(self, device):
        return self.teacher.logits(device)

    def left_out(self, device):
        return self.teacher.left_out(device)

    def load(self, device):
        network = self.teacher.load(device)
        features = network.features

        def counted(images):
            self.asked += 1
            return features(images)

        network.features = counted
        return network


def test_trainers_of_a_process_share_one_budget(training):
    """Each stride, offset and fold once had its own budget, which added up to gigabytes."""
    data, teacher = training
    opened = SimpleNamespace(training_data=lambda _: data, trained_teacher=teacher)
    trainers = Trainers(torch.device("cpu"))
    one, other = (trainers.get(key, lambda: opened) for key in ("a fold", "another"))
    assert one is not other
    assert one.budget is other.budget


def test_second_training_reuses_cached_maps_and_gives_identical_weights(tiny, training):
    data, teacher = training
    watched = Watched(teacher)
    trainer = Trainer(data, watched)
    narrow = recipe_of(tiny, ("attention", "mse", "weak", "add"))
    regressor = recipe_of(tiny, ("regressor", "mse", "weak", "add"))
    finish(trainer.distil(narrow))
    asked = watched.asked
    after = load(finish(trainer.distil(regressor))[1].weights)
    assert watched.asked == asked
    alone = load(finish(Trainer(data, teacher).distil(regressor))[1].weights)
    assert all(torch.equal(after[name], alone[name]) for name in alone)


def test_another_seed_gives_other_views_and_recomputes_maps(tiny, training):
    data, teacher = training
    watched = Watched(teacher)
    trainer = Trainer(data, watched)
    for seed, more in ((0, True), (0, False), (1, True)):
        before = watched.asked
        finish(trainer.distil(recipe_of(tiny, ("attention", "mse", "weak", "add"), seed=seed)))
        assert (watched.asked > before) == more
