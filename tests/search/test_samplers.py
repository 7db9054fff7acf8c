"""The contract for every sampler in a study."""

from __future__ import annotations

import typing

import pytest

from kdsearch.config.load import load_study
from kdsearch.config.search import Sampler
from kdsearch.search.store import open_store
from tests.front.students import scores
from tests.tiny import TINY

SAMPLERS = typing.get_args(Sampler)
TRIALS = 9
"""More than the random trials at the start, so that adaptive samplers use what they have learned."""


@pytest.fixture
def store(study_file, tmp_path):
    def make(sampler, *, name="a", seed=0, create=True, widths="[2, 6]"):
        text = (
            TINY.replace("[2, 6]", widths).replace("trials: 3", f"trials: 30, sampler: {sampler}") + f"seed: {seed}\n"
        )
        return open_store(load_study(study_file(text)), tmp_path / name, create=create)

    return make


def _run(store, count):
    """Asks and tells; some trials are rejected, stopped or fail, as in any study."""
    recipes = []
    for _ in range(count):
        proposal = store.ask()
        assert proposal is not None
        recipes.append(proposal.recipe)
        spec = proposal.recipe.student
        made = scores(dice=spec.width / (spec.width + 2), params=100 * spec.width, macs=1000 * spec.width)
        match proposal.number % 7:
            case 3:
                store.reject(proposal.number, "too large", violation=0.3)
            case 5:
                store.fail(proposal.number, "the loss became nan")
            case _:
                store.finish(proposal.number, made, ())
    return recipes


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_recipes_come_from_the_space_and_differ(store, sampler):
    recipes = _run(store(sampler), 8 if sampler == "grid" else TRIALS)
    assert {recipe.student.width for recipe in recipes} <= set(range(2, 7))
    assert {recipe.path for recipe in recipes} == {"none", "logits"}
    assert len({recipe.student.width for recipe in recipes}) > 1


@pytest.mark.parametrize("sampler", [sampler for sampler in SAMPLERS if sampler != "nsga3"])  # refused as deterministic
def test_same_seed_gives_the_same_search_even_when_resumed(store, sampler):
    count = 8 if sampler == "grid" else TRIALS
    whole = _run(store(sampler, name="whole"), count)
    first = _run(store(sampler, name="halves"), count // 2)
    second = _resumed(store(sampler, name="halves", create=False), count - count // 2)
    assert first + second == whole


def _resumed(store, count):
    assert store.abandoned() == []
    return _run(store, count)


@pytest.mark.parametrize("sampler", [sampler for sampler in SAMPLERS if sampler != "grid"])
def test_another_seed_gives_another_search(store, sampler):
    one, other = (
        [
            (recipe.student, recipe.path)
            for recipe in _run(store(sampler, name=str(seed), seed=seed, widths="[2, 200]"), TRIALS)
        ]
        for seed in (0, 1)
    )
    assert one != other


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler_works_while_other_trials_are_running(store, sampler):
    held = store(sampler)
    running = [held.ask() for _ in range(3)]
    assert len({proposal.number for proposal in running}) == 3
    assert _run(held, 4)
