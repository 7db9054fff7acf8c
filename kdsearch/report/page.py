"""A study, or its images, as one HTML file that needs no network."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs
from scipy.ndimage import binary_erosion

from kdsearch.config.study import StudyConfig
from kdsearch.config.task import Task
from kdsearch.data.audit import Finding
from kdsearch.data.dataset import DataSummary, foreground_of
from kdsearch.data.native import NativeImage
from kdsearch.report.charts import front_figure
from kdsearch.report.confirmation import DETAILS, confirmed_cells, detail_cells, part_cells, sentences
from kdsearch.report.figures import (
    confirmed_figure,
    curves_figure,
    groups_figure,
    hypervolume_figure,
    importance_figure,
    reference_size,
    steps_of,
)
from kdsearch.report.repeats import HEAD as VARIANTS_HEAD
from kdsearch.report.repeats import Variant, variant_rows, verdict
from kdsearch.report.table import STANDING, class_cells, describe_data, front_cells
from kdsearch.report.teacher import no_better_than_plain
from kdsearch.statistics.confirmation import Confirmation
from kdsearch.statistics.selection import Standings
from kdsearch.trials.record import Student, TrialRecord, students_of
from kdsearch.trials.scores import Scores

TEMPLATES = Environment(
    loader=PackageLoader("kdsearch.report"), autoescape=True, trim_blocks=True, undefined=StrictUndefined
)
SIDE = 160
"""Pixels of the longer side of a drawn image."""
OUTLINE = (255, 140, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """The content of a study's report."""

    study: StudyConfig
    records: tuple[TrialRecord, ...]
    """Ended trials."""
    front: tuple[Student, ...]
    teacher: Scores | None
    data: DataSummary | None
    importances: Mapping[str, float]
    overlays: Mapping[int, bytes]
    """PNG images of predictions, by trial."""
    study_text: str
    """The study file with its defaults."""
    environment: str
    standings: Standings = field(default_factory=dict)
    confirmed: Confirmation | None = None
    """None if the study was not confirmed."""
    tested: Confirmation | None = None
    """None if the locked test images were not used."""
    variants: tuple[Variant, ...] = ()
    """Recipes over repeats, if the study has repeats."""


def report_page(report: ReportData) -> str:
    """The study's report as HTML."""
    study, students = report.study, students_of(report.records)
    counts = Counter(record.outcome for record in report.records)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    groups = report.data.validation_groups if report.data else None
    most = reference_size(report.records, study.search.limits.params)
    steps = steps_of(report.records, most_params=most)
    chart = front_figure(
        study, students=students, front=report.front, teacher=report.teacher, standings=report.standings
    )
    chart.update_layout(height=560)
    return TEMPLATES.get_template("study.html").render(
        title=study.name,
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - Plotly's own script
        images=f"{', '.join(source.reader for source in study.data.sources)} at {study.data.task.describe_size()}",
        trials=f"{counts.total()} trials: {outcomes}",
        members=len(report.front),
        teacher=report.teacher.headline() if report.teacher else "",
        warning=no_better_than_plain(students, report.teacher, groups),
        front_chart=_chart(chart),
        front=front_cells(report.front, report.standings),
        by_class=class_cells(report.front),
        front_note=STANDING if report.standings else "",
        confirmed=_answers(report.confirmed),
        tested=_answers(report.tested),
        variants=[VARIANTS_HEAD, *variant_rows(report.variants)] if report.variants else [],
        variants_verdict=verdict(report.variants) if report.variants else "",
        part="test" if study.report_test_scores else "validation",
        stopped=counts["stopped"],
        curves=_chart(curves_figure(report.records, {student.number for student in report.front})),
        importance=_chart(importance_figure(report.importances)) if report.importances else "",
        reference=f"{most:,.0f}",
        by_trials=_chart(hypervolume_figure(steps, by="trials")),
        by_compute=_chart(hypervolume_figure(steps, by="compute")),
        by_path=_chart(groups_figure(students, by="path")),
        by_size=_chart(groups_figure(students, by="size")),
        overlays=[(trial, base64.b64encode(png).decode()) for trial, png in report.overlays.items()],
        data=_data(report.data, study.data.task) if report.data else "",
        caution=report.data.caution if report.data else "",
        study_text=report.study_text,
        environment=report.environment,
    )


def _answers(found: Confirmation | None) -> Mapping[str, object] | None:
    if found is None:
        return None
    return {
        "sentences": sentences(found),
        "chart": _chart(confirmed_figure(found)),
        "main": confirmed_cells(found),
        "details": detail_cells(found),
        "details_note": DETAILS,
        "parts": part_cells(found),
    }


def _data(data: DataSummary, task: Task) -> str:
    return f"{describe_data(data, task)} Fingerprint of the images {data.fingerprint}, of the split {data.split}."


def _chart(figure: go.Figure) -> Markup:
    config = {"displaylogo": False, "responsive": True}
    return Markup(figure.to_html(include_plotlyjs=False, full_html=False, config=config))  # noqa: S704 - escaped by Plotly


def data_page(
    *,
    name: str,
    tables: Sequence[Sequence[Sequence[str]]],
    remarks: Sequence[str],
    findings: Sequence[Finding],
    pictures: Mapping[str, NativeImage],
    most_shown: int,
    skipped: Sequence[str],
) -> str:
    """A study's images as HTML; ``pictures`` has them by id, and each finding draws at most ``most_shown``."""
    return TEMPLATES.get_template("data.html").render(
        title=f"Images of {name}",
        tables=tables,
        remarks=remarks,
        findings=[_drawn(finding, pictures, most_shown) for finding in findings],
        skipped=skipped,
    )


def _drawn(finding: Finding, pictures: Mapping[str, NativeImage], most_shown: int) -> Mapping[str, object]:
    drawn, shown, total = [], 0, len(finding.ids)
    for together in finding.images:
        if shown >= most_shown:
            break
        drawn.append([(one, _thumbnail(pictures[one])) for one in together if one in pictures])
        shown += len(together)
    count = f"{total} images" if len(finding.images) == total else f"{len(finding.images)} groups of {total} images"
    return {
        "title": f"{finding.what[0].upper()}{finding.what[1:]}: {count}",
        "drawn": drawn,
        "rest": "" if shown >= total else f"{shown} of {total} are drawn.",
    }


def _thumbnail(image: NativeImage) -> str:
    """Base64 of a PNG with the mask outlined."""
    pixels = image.pixels.copy() if image.pixels.ndim == 3 else np.repeat(image.pixels[..., None], 3, axis=2)
    mask = foreground_of(image.mask)
    pixels[mask & ~binary_erosion(mask, iterations=2)] = OUTLINE
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
