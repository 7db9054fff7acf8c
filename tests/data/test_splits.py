"""Splits: by group, by label, the same on every machine."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.config.data import DataConfig, SplitConfig
from kdsearch.config.sources import PublishedSource
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import Dataset, ImageInfo
from kdsearch.data.splits import split
from kdsearch.errors import DataError


def _dataset(infos: list[ImageInfo], lesions: list[bool] | None = None) -> Dataset:
    masks = np.zeros((len(infos), 2, 2), dtype=np.uint8)
    masks[:, 0, 0] = np.array(lesions if lesions is not None else [True] * len(infos))
    return Dataset(images=np.zeros_like(masks[:, None]), masks=masks, infos=tuple(infos), fingerprint="f")


def _infos(count: int, *, group_size: int = 1) -> list[ImageInfo]:
    return [
        ImageInfo(id=f"s/{i}", source="s", label="ab"[i % 2], group=None if group_size == 1 else str(i // group_size))
        for i in range(count)
    ]


@given(
    st.integers(min_value=40, max_value=200),
    st.integers(min_value=1, max_value=5),
    st.integers(min_value=0, max_value=9),
)
def test_every_image_is_in_one_part_and_no_group_in_two(count, group_size, seed):
    infos = _infos(count, group_size=group_size)
    parts = split(_dataset(infos), SplitConfig(seed=seed), train_on_negatives=True)
    everything = [*parts.train, *parts.validation, *parts.test]
    assert sorted(everything) == list(range(count))
    groups = [{infos[i].group or infos[i].id for i in part} for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, groups)) == len(set.union(*groups))


def _parted(parts: str, **settings) -> list[ImageInfo]:
    """An image for each letter, in the part of this initial; ``-`` leaves it open."""
    names = {"t": "train", "v": "validation", "e": "test", "-": None}
    return [
        ImageInfo(id=f"s/{place}", source="s", label=None, group=None, part=names[letter], **settings)
        for place, letter in enumerate(parts)
    ]


def test_split_that_a_data_set_brings_is_kept():
    parts = split(_dataset(_parted("ttvteetttv")), SplitConfig(), train_on_negatives=True)
    assert (parts.train, parts.validation, parts.test) == ((0, 1, 3, 6, 7, 8), (2, 9), (4, 5))
    fresh = split(_dataset(_parted("ttvteetttv")), SplitConfig(given="ignore"), train_on_negatives=True)
    assert fresh == split(_dataset(_parted("-" * 10)), SplitConfig(), train_on_negatives=True)


@pytest.mark.parametrize(("given", "lacking"), [("test", "validation"), ("validation", "test")])
def test_part_that_a_data_set_lacks_is_taken_from_its_training_images(given, lacking):
    infos = _parted("t" * 40 + {"test": "e", "validation": "v"}[given] * 10)
    parts = split(_dataset(infos), SplitConfig(validation=0.2, test=0.2), train_on_negatives=True)
    assert getattr(parts, given) == tuple(range(40, 50))
    assert len(getattr(parts, lacking)) == 8
    assert sorted((*parts.train, *getattr(parts, lacking))) == list(range(40))


def test_data_set_with_only_training_images_is_split():
    fresh = split(_dataset(_parted("-" * 20)), SplitConfig(), train_on_negatives=True)
    assert split(_dataset(_parted("t" * 20)), SplitConfig(), train_on_negatives=True) == fresh


def test_images_without_a_part_are_split_as_usual():
    parts = split(_dataset(_parted("tve" + "-" * 40)), SplitConfig(), train_on_negatives=True)
    assert 0 in parts.train
    assert 1 in parts.validation
    assert 2 in parts.test
    assert (len(parts.validation), len(parts.test)) == (7, 7)


def test_group_in_two_given_parts_is_refused_and_near_duplicates_are_reported(caplog):
    infos = [ImageInfo(id=f"s/{i}", source="s", label=None, group="p", part=p) for i, p in enumerate(("train", "test"))]
    with pytest.raises(DataError, match="images of group s/p in test and in train.*set given: ignore under data.split"):
        split(_dataset([*infos, *_parted("ttvv")]), SplitConfig(), train_on_negatives=True)
    twins = [dataclasses.replace(info, group="s/0") for info in infos]
    others = [dataclasses.replace(info, id=f"s/{9 + i}") for i, info in enumerate(_parted("ttvv"))]
    parts = split(_dataset([*twins, *others]), SplitConfig(), train_on_negatives=True)
    assert parts.test == (1,)
    assert "near-duplicates lie in different parts of the data set's own split (1 groups" in caplog.text


def test_given_part_with_only_negative_images_is_refused():
    with pytest.raises(DataError, match="the data set's own split has no validation image with a lesion"):
        split(_dataset(_parted("tve"), [True, False, True]), SplitConfig(), train_on_negatives=True)


def test_labels_keep_their_shares():
    infos = _infos(200)
    parts = split(_dataset(infos), SplitConfig(), train_on_negatives=True)
    for part, size in ((parts.train, 140), (parts.validation, 30), (parts.test, 30)):
        assert len(part) == size
        assert Counter(infos[i].label for i in part) == {"a": size // 2, "b": size // 2}


def test_split_is_the_same_on_every_machine():
    parts = split(_dataset(_infos(20)), SplitConfig(), train_on_negatives=True)
    assert (parts.validation, parts.test) == ((2, 14, 17), (0, 11, 15))


def test_another_seed_is_another_split():
    a, b = (split(_dataset(_infos(50)), SplitConfig(seed=seed), train_on_negatives=True) for seed in (0, 1))
    assert a.test != b.test
    assert a.fingerprint != b.fingerprint


def test_lesion_free_images_train_only_where_the_study_says_so():
    dataset = _dataset(_infos(60), [i % 3 != 0 for i in range(60)])
    without = split(dataset, SplitConfig(), train_on_negatives=False)
    with_them = split(dataset, SplitConfig(), train_on_negatives=True)
    assert all(i % 3 for i in without.train)
    assert any(i % 3 == 0 for i in with_them.train)
    assert without.validation == with_them.validation
    assert any(i % 3 == 0 for i in without.validation)


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match="2 images are too few for 3 parts"):
        split(_dataset(_infos(2)), SplitConfig(), train_on_negatives=True)


@pytest.mark.slow
@pytest.mark.realdata
def test_real_busi_keeps_near_duplicates_together(real_data, real_home):
    source = PublishedSource(reader="busi", folder=str(real_data / "busi"))
    dataset = load_dataset(DataConfig(sources=(source,), size=32), real_home)
    sizes = [count for count in Counter(info.group for info in dataset.infos).values() if count > 1]
    assert len(sizes) == pytest.approx(137, abs=8)
    assert sum(sizes) == pytest.approx(323, abs=16)  # 303 by only the hashes
    group = {info.id: info.group for info in dataset.infos}
    assert group["busi/benign (433)"] == group["busi/malignant (145)"]
    parts = split(dataset, SplitConfig(), train_on_negatives=False)
    sides = [{dataset.infos[i].group for i in part} for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))


def _grouped(sizes: list[int], lesions: list[bool] | None = None) -> Dataset:
    """Images of groups of those sizes; ``lesions`` says which groups hold lesions."""
    infos, held = [], []
    for number, size in enumerate(sizes):
        infos += [ImageInfo(id=f"s/{number}-{i}", source="s", label=None, group=f"v{number}") for i in range(size)]
        held += [lesions is None or lesions[number]] * size
    return _dataset(infos, held)


@pytest.mark.parametrize("sizes", [[100] * 4, [305, 171, 124, 101], [10, 10, 10], [500, 1, 1]])
@pytest.mark.parametrize("seed", range(5))
def test_few_or_unequal_groups_fill_each_part(sizes, seed):
    dataset = _grouped(sizes)
    parts = split(dataset, SplitConfig(seed=seed), train_on_negatives=True)
    groups = [{dataset.infos[i].group for i in part} for part in (parts.train, parts.validation, parts.test)]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(sizes)
    assert len(parts.train) >= max(len(parts.validation), len(parts.test))


@given(st.lists(st.integers(min_value=1, max_value=40), min_size=3, max_size=12), st.data())
def test_three_groups_with_a_lesion_are_enough(sizes, data):
    lesions = data.draw(st.permutations([True] * 3 + [False] * (len(sizes) - 3)))
    dataset = _grouped(sizes, lesions)
    parts = split(dataset, SplitConfig(), train_on_negatives=False)
    assert all(dataset.has_foreground[list(part)].any() for part in (parts.train, parts.validation, parts.test))


@pytest.mark.parametrize(("count", "size", "seed"), [(40, 1, 0), (60, 3, 1), (90, 2, 5), (33, 3, 7)])
def test_splits_that_the_first_releases_made_stay(count, size, seed):
    """Fingerprints of stored studies depend on them."""
    known = json.loads((Path(__file__).parent / "splits_of_the_first_releases.json").read_text())
    parts = split(_dataset(_infos(count, group_size=size)), SplitConfig(seed=seed), train_on_negatives=True)
    assert [list(parts.validation), list(parts.test)] == known[f"{count} {size} {seed}"]


def test_masks_that_are_all_empty_are_reported():
    with pytest.raises(DataError, match="none of the 30 masks has a lesion"):
        split(_dataset(_infos(30), [False] * 30), SplitConfig(), train_on_negatives=True)


def test_images_in_one_near_duplicate_group_are_reported():
    infos = [ImageInfo(id=f"s/{i}", source="s", label=None, group="s/0") for i in range(40)]
    with pytest.raises(DataError, match=r"only 1 of 1 groups .*s/0 \(40 images\); near-duplicates form one group"):
        split(_dataset(infos), SplitConfig(), train_on_negatives=True)


def test_one_group_for_all_is_named():
    with pytest.raises(DataError, match=r"only 1 of 1 groups .* s/v0 \(30 images\); add images of other groups"):
        split(_grouped([30]), SplitConfig(), train_on_negatives=True)


def test_groups_of_negative_images_do_not_count():
    with pytest.raises(DataError, match=r"only 2 of 5 groups have a lesion, .* s/v1 \(20 images\)"):
        split(_grouped([20] * 5, [False, True, True, False, False]), SplitConfig(), train_on_negatives=True)
