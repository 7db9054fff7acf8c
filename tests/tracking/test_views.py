"""Saved views, as MLflow's pages read them; tests/browser shows that they do."""

from __future__ import annotations

import json

from kdsearch.config.space import dimensions
from kdsearch.config.study import StudyConfig
from kdsearch.tracking.views import TAG, saved_views, unpack

STUDY = StudyConfig.model_validate_json(
    '{"name": "s", "student": {"width": {"int": [2, 6]}}, "distillation": {"path": {"choice": ["none", "logits"]},'
    ' "weight": {"float": [0.2, 0.8]}}}'
)
VIEWS = saved_views(study_id="abc", searched=list(dimensions(STUDY)), created_ms=5)


def test_envelopes_hold_what_mlflow_insists_on():
    for value in VIEWS.values():
        envelope = json.loads(value)
        assert isinstance(envelope["name"], str)
        assert (envelope["createdAt"], envelope["updatedAt"]) == (5, 5)
        assert envelope["state"].startswith("deflate;")
        assert len(value) < 5000  # MLflow's limit


def test_front_view_sorts_the_front_first_and_shows_this_studys_finished_trials():
    state = unpack(VIEWS[f"{TAG}kdsearch-front"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("tags.`kdsearch.front`", False)
    assert "tags.`kdsearch.study` = 'abc'" in state["searchFilter"]
    assert "attributes.status = 'FINISHED'" in state["searchFilter"]
    assert state["runsHiddenMode"] == "SHOW_ALL"
    assert [chart["type"] for chart in state["compareRunCharts"]] == ["SCATTER", "SCATTER", "PARALLEL"]


def test_parallel_coordinates_show_only_settings_that_every_recipe_has():
    chart = unpack(VIEWS[f"{TAG}kdsearch-front"])["compareRunCharts"][2]
    assert chart["selectedParams"] == ["student.width", "distillation.path"]  # a plain student has no weight


def test_paths_are_compared_by_group():
    state = unpack(VIEWS[f"{TAG}kdsearch-paths"])
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "distillation.path"}]
