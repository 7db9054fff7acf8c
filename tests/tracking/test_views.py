"""Saved views, as MLflow's pages read them; tests/browser shows that they do."""

from __future__ import annotations

import datetime
import json

from kdsearch.config.space import dimensions
from kdsearch.config.study import StudyConfig
from kdsearch.tracking.views import TAG, holds_another, saved_views, unpack

STUDY = StudyConfig.model_validate_json(
    '{"name": "s", "student": {"width": {"int": [2, 6]}}, "distillation": {"path": {"choice": ["none", "logits"]},'
    ' "weight": {"float": [0.2, 0.8]}}}'
)
ID = "0123456789ab"
BEGAN = datetime.datetime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.UTC)
VIEWS = saved_views(study_id=ID, searched=list(dimensions(STUDY)), created=BEGAN)


def test_views_have_the_fields_mlflow_requires():
    for value in VIEWS.values():
        envelope = json.loads(value)
        assert isinstance(envelope["name"], str)
        assert envelope["createdAt"] == envelope["updatedAt"] == 1000 * BEGAN.timestamp()
        assert envelope["state"].startswith("deflate;")
        assert len(value) < 5000  # MLflow's limit


def test_front_view_sorts_the_front_first_and_shows_this_studys_finished_trials():
    state = unpack(VIEWS[f"{TAG}kdsearch-front-01234567"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("tags.`kdsearch.front`", False)
    assert "tags.`kdsearch.study` = '0123456789ab'" in state["searchFilter"]
    assert "attributes.status = 'FINISHED'" in state["searchFilter"]
    assert state["runsHiddenMode"] == "SHOW_ALL"
    assert [chart["type"] for chart in state["compareRunCharts"]] == ["SCATTER", "SCATTER", "PARALLEL"]


def test_parallel_coordinates_show_only_settings_that_every_recipe_has():
    chart = unpack(VIEWS[f"{TAG}kdsearch-front-01234567"])["compareRunCharts"][2]
    assert chart["selectedParams"] == ["student.width", "distillation.path"]  # an undistilled student has no weight


def test_paths_are_compared_by_group():
    state = unpack(VIEWS[f"{TAG}kdsearch-paths-01234567"])
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "distillation.path"}]


def test_views_of_a_same_named_study_are_distinguished_from_a_user_s():
    assert not holds_another([*VIEWS, f"{TAG}1f00", "mlflow.note.content"], ID)
    assert holds_another([*VIEWS, f"{TAG}kdsearch-front-76543210"], ID)


def test_views_of_same_named_studies_include_the_start_time():
    views = saved_views(study_id=ID, searched=[], created=BEGAN, is_alone=False)
    assert views.keys() == VIEWS.keys()
    names = [json.loads(value)["name"] for value in views.values()]
    assert names[0] == "Pareto front (2026-05-04 03:02)"
    assert all("(2026-05-04 03:02)" in name for name in names)


def test_latency_gets_a_scatter_and_a_column_if_it_is_an_objective():
    timed = saved_views(study_id=ID, searched=[], created=BEGAN, is_timed=True)
    for views, shown in ((timed, True), (VIEWS, False)):
        state = unpack(views[f"{TAG}kdsearch-front-01234567"])
        axes = [chart["xaxis"]["key"] for chart in state["compareRunCharts"] if chart["type"] == "SCATTER"]
        assert ("latency_ms" in axes) is shown
        assert ("metrics.`latency_ms`" in state["selectedColumns"]) is shown
