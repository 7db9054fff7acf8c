"""Materials that a process keeps open."""

from __future__ import annotations

import weakref

import torch

from kdsearch.distill.batches import TrainingData
from kdsearch.distill.materials import Trainers


class _Materials:
    """Materials that open immediately."""

    trained_teacher = object()

    def training_data(self, _device):
        return TrainingData(train=None, validation=None)


def test_materials_are_opened_once_and_the_most_recent_are_kept():
    opened, alive = [], weakref.WeakSet()
    trainers = Trainers(torch.device("cpu"), most=2)

    def get(key):
        def open_materials():
            assert len(alive) < 2, "old materials must be released before new ones are opened"
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
    assert opened == ["a", "b", "c", "b"], "the least recently used materials are released"
