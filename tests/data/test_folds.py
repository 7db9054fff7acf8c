"""Folds: every image that is not locked scores once, groups stay whole, labels are balanced."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.config.data import SplitConfig
from kdsearch.data.dataset import Dataset, ImageInfo, group_of
from kdsearch.data.splits import development_images, folds, folds_by_source, split, training_folds
from kdsearch.errors import DataError


def _dataset(groups, *, sources=("one",), labels=("benign", "malignant", "benign"), normal=()):
    infos = tuple(
        ImageInfo(
            id=f"image {place}",
            source=sources[place % len(sources)],
            label=labels[place % len(labels)],
            group=group,
        )
        for place, group in enumerate(groups)
    )
    masks = np.full((len(infos), 4, 4), 1, dtype=np.uint8)
    masks[list(normal)] = 0
    return Dataset(images=np.zeros_like(masks[:, None]), masks=masks, infos=infos, fingerprint="f")


def _folds(dataset, *, count=5, seed=0, train_on_negatives=False):
    splits = split(dataset, SplitConfig(), train_on_negatives=train_on_negatives)
    return splits, folds(dataset, splits, count=count, seed=seed, train_on_negatives=train_on_negatives)


@given(st.lists(st.sampled_from([None, *"abcdefghij"]), min_size=80, max_size=160), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_every_image_but_the_locked_scores_once_and_no_group_is_on_both_sides(groups, seed):
    dataset = _dataset(groups)
    splits, dealt = _folds(dataset, seed=seed)
    scored = Counter(position for fold in dealt for position in fold.validation)
    assert set(scored) == set(development_images(dataset, splits))
    assert set(scored.values()) == {1}
    for fold in dealt:
        sides = [
            {group_of(dataset.infos[position]) for position in part}
            for part in (fold.train, fold.validation, splits.test)
        ]
        assert sides[0].isdisjoint(sides[1])
        assert sides[2].isdisjoint(sides[0] | sides[1])
        assert fold.test == splits.test


def test_labels_are_balanced_across_folds():
    dataset = _dataset([None] * 300)
    _, dealt = _folds(dataset)
    sizes = [len(fold.validation) for fold in dealt]
    assert max(sizes) - min(sizes) <= 2
    for fold in dealt:
        malignant = sum(dataset.infos[position].label == "malignant" for position in fold.validation)
        assert malignant / len(fold.validation) == pytest.approx(1 / 3, abs=0.03)


def test_another_seed_deals_other_folds_and_the_same_the_same():
    dataset = _dataset([None] * 100)
    prints = [[fold.fingerprint for fold in _folds(dataset, seed=seed)[1]] for seed in (0, 0, 1)]
    assert prints[0] == prints[1]
    assert set(prints[0]).isdisjoint(prints[2])


def test_negative_images_are_scored_but_train_only_on_request():
    dataset = _dataset([None] * 100, normal=range(0, 100, 4))
    for wanted in (False, True):
        splits, dealt = _folds(dataset, train_on_negatives=wanted)
        assert {position for fold in dealt for position in fold.validation} == set(development_images(dataset, splits))
        assert any(not dataset.has_foreground[position] for fold in dealt for position in fold.train) == wanted


def test_each_source_is_left_out_once():
    dataset = _dataset([None, None, "across sources: x"] * 30, sources=("here", "there"))
    splits = split(dataset, SplitConfig(), train_on_negatives=False)
    dealt = folds_by_source(dataset, splits, train_on_negatives=False)
    assert [{dataset.infos[place].source for place in fold.validation} for fold in dealt] == [{"here"}, {"there"}]
    for fold in dealt:
        assert all(dataset.infos[place].group is None for place in fold.train), "the others have members in the fold"


def test_one_source_cannot_be_left_out():
    dataset = _dataset([None] * 30)
    splits = split(dataset, SplitConfig(), train_on_negatives=False)
    with pytest.raises(DataError, match=r"confirm\.leave_one_source_out: needs at least two sources, got one, one"):
        folds_by_source(dataset, splits, train_on_negatives=False)


def test_too_few_lesions_for_the_folds_are_refused():
    dataset = _dataset([None] * 40, normal=range(6, 40))
    splits = split(dataset, SplitConfig(validation=0.2, test=0.2), train_on_negatives=False)
    with pytest.raises(DataError, match="lower confirm.folds"):
        folds(dataset, splits, count=10, seed=0, train_on_negatives=False)


class CountedMasks(np.ndarray):
    """Counts how often they are looked through."""

    looks = 0

    def any(self, *args, **kwargs):
        """As of any array."""
        CountedMasks.looks += 1
        return super().any(*args, **kwargs)


def test_masks_are_looked_through_once_for_all_folds():
    masks = np.zeros((60, 4, 4), dtype=np.uint8)
    masks[:, 0, 0] = 1
    infos = tuple(ImageInfo(id=f"s/{i}", source="s", label=None, group=None) for i in range(60))
    dataset = Dataset(
        images=np.zeros_like(masks[:, None]), masks=masks.view(CountedMasks), infos=infos, fingerprint="f"
    )
    splits = split(dataset, SplitConfig(), train_on_negatives=True)
    CountedMasks.looks = 0
    training_folds(dataset, splits, count=5)
    assert CountedMasks.looks == 1
