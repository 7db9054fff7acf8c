"""Every name a study file may use has something behind it."""

from __future__ import annotations

import typing

import pytest

from kdsearch.config.distillation import Loss, Path
from kdsearch.config.networks import Architecture, FamilyName
from kdsearch.config.search import Objective, Sampler, SearchConfig
from kdsearch.config.sources import AnnotatedSource, PublishedSource
from kdsearch.data.source import ANNOTATED, READERS
from kdsearch.distill.losses import TERM_LOSSES
from kdsearch.models.students import NETWORKS
from kdsearch.report.charts import COLORS, SYMBOLS
from kdsearch.search.optuna_study import DIRECTIONS
from kdsearch.search.sampling import build_sampler


def _names(literal: object) -> set[str]:
    return set(typing.get_args(literal))


def test_every_reader_exists():
    assert set(READERS) == _names(PublishedSource.model_fields["reader"].annotation)
    assert set(ANNOTATED) == _names(AnnotatedSource.model_fields["reader"].annotation)


def test_every_objective_has_a_direction():
    assert set(DIRECTIONS) == _names(Objective)


def test_every_loss_is_computed():
    assert set(TERM_LOSSES) == _names(Loss)


def test_every_family_has_a_network():
    assert set(NETWORKS) == _names(FamilyName)


def test_every_path_has_a_color_and_a_symbol():
    assert set(COLORS) == set(SYMBOLS) == _names(Path)


def test_every_architecture_is_known_to_smp():
    from kdsearch.models.encoders import declare_missing_operators

    declare_missing_operators()
    import segmentation_models_pytorch as smp

    assert _names(Architecture) == set(smp.MODEL_ARCHITECTURES_MAPPING)


@pytest.mark.parametrize("sampler", sorted(_names(Sampler)))
def test_every_sampler_can_be_built(sampler):
    assert build_sampler(SearchConfig(sampler=sampler), seed=0) is not None
