"""What a process holds of materials."""

from __future__ import annotations

import weakref

import torch

from kdsearch.distill.batches import TrainingData
from kdsearch.distill.materials import Trainers


class _Materials:
    """Opens at once."""

    trained_teacher = object()

    def training_data(self, _device):
        return TrainingData(train=None, validation=None)


def test_materials_are_opened_once_and_the_last_few_kept():
    opened, alive = [], weakref.WeakSet()
    trainers = Trainers(torch.device("cpu"), most=2)

    def get(key):
        def open_materials():
            assert len(alive) < 2, "there is room before more is opened"
            opened.append(key)
            return _Materials()

        trainer = trainers.get(key, open_materials)
        alive.add(trainer)
        return trainer

    first = get("a")
    assert get("a") is first
    del first
    for key in ("b", "a", "c", "a", "b"):
        get(key)
    assert opened == ["a", "b", "c", "b"], "the one that was longest unused goes"
