"""Saved views of a study's runs for MLflow's own pages, in the form that MLflow 3.17 keeps them in.

A view is a tag of the experiment, ``mlflow.sharedViewState.ID``, that holds the state of the page, deflated. The IDs
here all begin with ``kdsearch-``, so that a view that a person saved is never touched.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import TypeAlias

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json] | None"

TAG = "mlflow.sharedViewState."
FRONT_VIEW, CURVES_VIEW, PATHS_VIEW = "kdsearch-front", "kdsearch-curves", "kdsearch-paths"
COLUMNS = ("metrics.`dice`", "metrics.`params`", "metrics.`macs`")
RECIPE_COLUMNS = ("distillation.path", "student.width", "student.depth")
SECTION = "kdsearch"
FOLDED = ("curve", "Model metrics", "System metrics")
"""Sections that MLflow adds for every metric it finds; they stay folded below the view's own."""


def saved_views(*, study_id: str, searched: Sequence[str], created_ms: int) -> dict[str, str]:
    """The tags of the three views by name; ``searched`` are the dotted names of the recipe's searched settings.

    ``created_ms`` is when the study began, in milliseconds since 1970: MLflow takes no view without it.
    """
    trials = f"tags.`kdsearch.kind` = 'trial' AND tags.`kdsearch.study` = '{study_id}'"
    finished = f"{trials} AND attributes.status = 'FINISHED'"
    everywhere = [name for name in searched if not name.startswith("distillation.") or name == "distillation.path"]
    views = {
        FRONT_VIEW: _view(
            "Pareto front",
            charts=[
                _scatter("Dice against parameters", "log10_params", "dice"),
                _scatter("Dice against multiply-adds", "log10_macs", "dice"),
                _parallel("Recipe", everywhere, ["dice", "log10_params"]),
            ],
            search=finished,
            order="tags.`kdsearch.front`",
        ),
        CURVES_VIEW: _view(
            "Learning curves",
            charts=[_line("Dice by epoch", "curve/dice"), _line("Validation loss by epoch", "curve/validation_loss")],
            search=f"{trials} AND tags.`kdsearch.front` = 'true'",
            order="metrics.`params`",
        ),
        PATHS_VIEW: _view(
            "Compare paths",
            charts=[_bar("Dice, mean over a path's students", "dice"), _bar("log10 of parameters", "log10_params")],
            search=finished,
            order="metrics.`dice`",
            group="distillation.path",
        ),
    }
    times: dict[str, Json] = {"createdAt": created_ms, "updatedAt": created_ms}
    return {f"{TAG}{name}": json.dumps(view | times, separators=(",", ":")) for name, view in views.items()}


def unpack(tag_value: str) -> dict[str, Json]:
    """The state of the page in a view's tag."""
    state: dict[str, Json] = json.loads(
        zlib.decompress(base64.b64decode(json.loads(tag_value)["state"].partition(";")[2]))
    )
    return state


def _view(name: str, *, charts: list[Json], search: str, order: str, group: str | None = None) -> dict[str, Json]:
    grouped: Json = (
        {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": group}]} if group else None
    )
    state: Json = {
        "searchFilter": search,
        "orderByKey": order,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [*COLUMNS, *(f"params.`{column}`" for column in RECIPE_COLUMNS)],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [
            _section(SECTION, name, unfolded=True),
            *(_section(f"{SECTION}-{folded}", folded, unfolded=False) for folded in FOLDED),
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": grouped,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return {"name": name, "state": f"deflate;{packed}"}


def _section(uuid: str, name: str, *, unfolded: bool) -> Json:
    return {
        "uuid": uuid,
        "name": name,
        "display": unfolded,
        "isReordered": True,
        "deleted": False,
        "isGenerated": not unfolded,
    }


def _chart(kind: str, title: str, **settings: Json) -> Json:
    name = f"{SECTION}-{kind.lower()}-{title.lower().replace(' ', '-')}"
    return {
        "uuid": name,
        "type": kind,
        "displayName": title,
        "metricSectionId": SECTION,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        **settings,
    }


def _scatter(title: str, x: str, y: str) -> Json:
    return _chart("SCATTER", title, xaxis={"key": x, "type": "METRIC"}, yaxis={"key": y, "type": "METRIC"})


def _parallel(title: str, params: list[str], metrics: list[str]) -> Json:
    selected: list[Json] = [*params]
    return _chart("PARALLEL", title, selectedParams=selected, selectedMetrics=[*metrics], showAllRuns=False)


def _line(title: str, metric: str) -> Json:
    return _chart(
        "LINE",
        title,
        metricKey=metric,
        selectedMetricKeys=[metric],
        lineSmoothness=0,
        xAxisKey="step",
        xAxisScaleType="linear",
        scaleType="linear",
        range={},
        selectedXAxisMetricKey="",
        yAxisKey="metric",
        yAxisExpressions=[],
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
    )


def _bar(title: str, metric: str) -> Json:
    return _chart("BAR", title, metricKey=metric)
