"""Saved views of a study's runs for MLflow's UI, in the format of MLflow 3.17.

A view is a tag of the experiment, ``mlflow.sharedViewState.ID``, with the compressed state of the page. The IDs of
kdsearch's views start with ``kdsearch-`` and end with the study's ID, so that views of people and of other studies with
the same name stay unchanged.
"""

from __future__ import annotations

import base64
import datetime
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json] | None"
Chart: TypeAlias = dict[str, Json]

TAG = "mlflow.sharedViewState."
OURS = "kdsearch-"
KINDS = FRONT, CURVES, PATHS, CONFIRMED = "front", "curves", "paths", "confirmed"
COLUMNS = ("metrics.`dice`", "metrics.`params`", "metrics.`macs`")
LATENCY_COLUMN = "metrics.`latency_ms`"
RECIPE_COLUMNS = ("params.`distillation.path`", "params.`student.width`", "params.`student.depth`")
SCATTERS = (("Dice against parameters", "log10_params"), ("Dice against multiply-adds", "log10_macs"))
LATENCY_SCATTER = ("Dice against latency", "latency_ms")
FINISHED = "attributes.status = 'FINISHED'"
MOST_COLUMNS = 2
"""Number of charts side by side; with more, they would be too narrow to read."""
FOLDED = ("curve", "Model metrics", "System metrics")
"""Sections that MLflow adds for all other metrics; they are collapsed below the view's own sections."""


def view_id(kind: str, study_id: str) -> str:
    """Returns the ID of a study's view, which links contain."""
    return f"{OURS}{kind}-{study_id[:8]}"


def holds_another(tags: Iterable[str], study_id: str) -> bool:
    """Whether an experiment's tags contain views of another study with the same name."""
    ours = tuple(view_id(kind, study_id) for kind in KINDS)
    return any(tag.startswith(f"{TAG}{OURS}") and not tag.endswith(ours) for tag in tags)


def saved_views(
    *, study_id: str, searched: Sequence[str], created: datetime.datetime, is_alone: bool = True, is_timed: bool = False
) -> dict[str, str]:
    """Returns the tags of the three views; ``searched`` are the dotted names of the searched settings.

    With ``is_timed``, the views also show latency. ``created`` is when the study started; it is added to the views'
    names unless ``is_alone``, which means that no other study has the same name.
    """
    columns = [*COLUMNS, *([LATENCY_COLUMN] if is_timed else []), *RECIPE_COLUMNS]
    trials = f"tags.`kdsearch.kind` = 'trial' AND tags.`kdsearch.study` = '{study_id}'"
    views = {
        FRONT: _front_view(trials, columns, searched=searched, is_timed=is_timed),
        CURVES: _curves_view(trials, columns),
        PATHS: _paths_view(trials, columns),
    }
    suffix = "" if is_alone else f" ({created:%Y-%m-%d %H:%M})"
    return _tags(views, study_id=study_id, created=created, suffix=suffix)


def confirmed_view(*, study_id: str, plan: str, created: datetime.datetime) -> dict[str, str]:
    """Returns the tag of the confirmed front's view; ``plan`` is the plan's digest, ``created`` when it was fixed."""
    found = _view(
        "Confirmed front",
        ["metrics.`dice`", "metrics.`dice_low`", "metrics.`dice_high`", "metrics.`params`", "metrics.`over_twin`"],
        sections={
            "Confirmed front": [
                _scatter("Confirmed Dice against parameters", "log10_params", "dice"),
                _bar("Distilled minus its undistilled twin", "over_twin"),
            ]
        },
        search=f"tags.`kdsearch.kind` = 'confirmed' AND tags.`kdsearch.plan` = '{plan}'",
        order="metrics.`params`",
    )
    return _tags({CONFIRMED: found}, study_id=study_id, created=created)


def _tags(
    views: Mapping[str, tuple[str, str]], *, study_id: str, created: datetime.datetime, suffix: str = ""
) -> dict[str, str]:
    moment = int(created.timestamp() * 1000)
    return {
        f"{TAG}{view_id(kind, study_id)}": json.dumps(
            {"name": name + suffix, "state": state, "createdAt": moment, "updatedAt": moment}, separators=(",", ":")
        )
        for kind, (name, state) in views.items()
    }


def _front_view(trials: str, columns: Sequence[str], *, searched: Sequence[str], is_timed: bool) -> tuple[str, str]:
    scatters = [*SCATTERS, *([LATENCY_SCATTER] if is_timed else [])]
    everywhere = [name for name in searched if not name.startswith("distillation.") or name == "distillation.path"]
    return _view(
        "Pareto front",
        columns,
        sections={
            "Pareto front": [_scatter(title, metric, "dice") for title, metric in scatters],
            "Recipe": [_parallel("Recipe", everywhere, ["dice", "log10_params"])],
        },
        search=f"{trials} AND {FINISHED}",
        order="tags.`kdsearch.front`",
    )


def _curves_view(trials: str, columns: Sequence[str]) -> tuple[str, str]:
    charts = [_line("Dice by epoch", "curve/dice"), _line("Validation loss by epoch", "curve/validation_loss")]
    return _view(
        "Learning curves",
        columns,
        sections={"Learning curves": charts},
        search=f"{trials} AND tags.`kdsearch.front` = 'true'",
        order="metrics.`params`",
    )


def _paths_view(trials: str, columns: Sequence[str]) -> tuple[str, str]:
    charts = [_bar("Dice", "dice"), _bar("log10 of parameters", "log10_params")]
    return _view(
        "Compare paths",
        columns,
        sections={"Means over a path's students": charts},
        search=f"{trials} AND {FINISHED}",
        order="metrics.`dice`",
        group="distillation.path",
    )


def unpack(tag_value: str) -> dict[str, Json]:
    """Returns the state of the page from the value of a view's tag."""
    state: dict[str, Json] = json.loads(
        zlib.decompress(base64.b64decode(json.loads(tag_value)["state"].partition(";")[2]))
    )
    return state


def _view(
    name: str,
    columns: Sequence[str],
    *,
    sections: Mapping[str, Sequence[Chart]],
    search: str,
    order: str,
    group: str | None = None,
) -> tuple[str, str]:
    """A view's name and the compressed state of its page: a table's columns, and charts in sections by title."""
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
        "selectedColumns": [*columns],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [
            chart | {"metricSectionId": _section_id(title)} for title, charts in sections.items() for chart in charts
        ],
        "compareRunSections": [
            *(_section(title, columns=min(len(charts), MOST_COLUMNS)) for title, charts in sections.items()),
            *(_section(folded, columns=None) for folded in FOLDED),
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
    return name, f"deflate;{packed}"


def _section(title: str, *, columns: int | None) -> Json:
    """A section with ``columns`` charts side by side; a collapsed one if None."""
    return {
        "uuid": _section_id(title),
        "name": title,
        "display": columns is not None,
        "isReordered": True,
        "deleted": False,
        "isGenerated": columns is None,
        **({"columns": columns} if columns is not None else {}),
    }


def _section_id(title: str) -> str:
    return f"kdsearch-{title}"


def _chart(kind: str, title: str, **settings: Json) -> Chart:
    name = f"kdsearch-{kind.lower()}-{title.lower().replace(' ', '-')}"
    return {
        "uuid": name,
        "type": kind,
        "displayName": title,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        **settings,
    }


def _scatter(title: str, x: str, y: str) -> Chart:
    return _chart("SCATTER", title, xaxis={"key": x, "type": "METRIC"}, yaxis={"key": y, "type": "METRIC"})


def _parallel(title: str, params: list[str], metrics: list[str]) -> Chart:
    selected: list[Json] = [*params]
    return _chart("PARALLEL", title, selectedParams=selected, selectedMetrics=[*metrics], showAllRuns=False)


def _line(title: str, metric: str) -> Chart:
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


def _bar(title: str, metric: str) -> Chart:
    return _chart("BAR", title, metricKey=metric)
