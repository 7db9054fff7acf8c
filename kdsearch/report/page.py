"""A study's report: one HTML file that opens with no network."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import DataSummary
from kdsearch.report.chart import front_figure
from kdsearch.report.confirmation import DETAILS, confirmed_cells, detail_cells, part_cells, sentences
from kdsearch.report.figures import (
    confirmed_figure,
    curves_figure,
    groups_figure,
    hypervolume_figure,
    importance_figure,
)
from kdsearch.report.progress import Step, reference_size, steps_of
from kdsearch.report.repeats import HEAD as VARIANTS_HEAD
from kdsearch.report.repeats import Variant, variant_rows, verdict
from kdsearch.report.table import front_cells, what_stands
from kdsearch.report.teacher import no_better_than_plain
from kdsearch.statistics.confirmation import Confirmation
from kdsearch.statistics.selection import Standings
from kdsearch.trials.record import Student, TrialRecord, students_of
from kdsearch.trials.scores import Scores

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.7em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } td, th { padding: .2em .8em; text-align: right }
th { border-bottom: 2px solid #222 } td:nth-last-child(-n+2), th:nth-last-child(-n+2) { text-align: left }
pre { background: #f6f6f6; padding: 1em; overflow: auto; max-height: 20em; font-size: 12px } img { max-width: 100% }
.pair { display: flex; flex-wrap: wrap } .pair > div { flex: 0 0 50%; min-width: 0 }
@media (max-width: 800px) { .pair > div { flex-basis: 100% } }
@media print { .modebar { display: none } h2, h3 { break-after: avoid } img, .plotly-graph-div { break-inside: avoid }
pre { max-height: none; white-space: pre-wrap } }
"""
Sections = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """What a report tells."""

    study: StudyConfig
    records: tuple[TrialRecord, ...]
    """Ended trials."""
    front: tuple[Student, ...]
    teacher: Scores | None
    data: DataSummary | None
    importances: Mapping[str, float]
    overlays: Mapping[int, bytes]
    """PNG sheets of the front's members, by trial."""
    study_text: str
    """The resolved study file."""
    environment: str
    standings: Standings = field(default_factory=dict)
    confirmed: Confirmation | None = None
    """What the study's confirmation found; None where it has none."""
    tested: Confirmation | None = None
    """What its locked test images said; None where they are closed."""
    variants: tuple[Variant, ...] = ()
    """Recipes over repeats, where the study was repeated."""


def report_page(story: ReportData) -> str:
    """The report as HTML."""
    name = html.escape(story.study.name)
    sections = "\n".join(
        f"<section><h2>{title}</h2>\n{content}</section>" for title, content in _sections(story) if content
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>kdsearch: {name}</title>'
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head>\n<body><h1>{name}</h1>\n{_summary(story)}\n"
        f"{sections}\n</body></html>\n"
    )


def _sections(story: ReportData) -> Sections:
    students = students_of(story.records)
    members = {student.number for student in story.front}
    most = reference_size(story.records, story.study.search.limits.params)
    steps = steps_of(story.records, most_params=most)
    chart = front_figure(
        story.study, students=students, front=story.front, teacher=story.teacher, standings=story.standings
    )
    chart.update_layout(height=560)
    return [
        ("Front", _chart(chart)),
        ("Members of the front", _table(story.front, story.standings)),
        ("Confirmed", _confirmed(story.confirmed)),
        ("Locked test images", _answers(story.tested) if story.tested is not None else ""),
        (
            f"Over repeats, each with another split and seed: {_part(story)} images",
            _variants(story),
        ),
        ("Learning curves of the front, and where trials were stopped", _curves(story, members)),
        ("What mattered for Dice", _importance(story)),
        ("How the search went", _progress(steps, most)),
        ("Dice by path and by size", _pair(groups_figure(students, by="path"), groups_figure(students, by="size"))),
        ("Predictions", _overlays(story)),
        ("Data", _data(story)),
        ("Study file", f"<pre>{html.escape(story.study_text)}</pre>"),
        ("Environment", f"<pre>{html.escape(story.environment)}</pre>"),
    ]


def _part(story: ReportData) -> str:
    return "test" if story.study.report_test_scores else "validation"


def _variants(story: ReportData) -> str:
    if not story.variants:
        return ""
    note = "p-values are of paired t-tests over all repeats' images."
    return (
        f"{html_table(VARIANTS_HEAD, variant_rows(story.variants))}<p>{note} {html.escape(verdict(story.variants))}</p>"
    )


def _confirmed(found: Confirmation | None) -> str:
    if found is None:
        return (
            "<p>Not confirmed: the Dice above are the search's own, which chose by them. <code>kdsearch confirm</code> "
            "trains the likely front again, beside students that are not distilled, and says what it is worth.</p>"
        )
    return _answers(found)


def _answers(found: Confirmation) -> str:
    words = "".join(f"<p>{html.escape(line)}</p>" for line in sentences(found))
    first, details, parts = (
        html_table(head, rows) for head, *rows in (confirmed_cells(found), detail_cells(found), part_cells(found))
    )
    return f"{words}{_chart(confirmed_figure(found))}{first}{details}<p>{html.escape(DETAILS)}.</p>{parts}"


def _summary(story: ReportData) -> str:
    counts = Counter(record.outcome for record in story.records)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    teacher = f" Teacher: {html.escape(story.teacher.headline())}." if story.teacher else ""
    groups = story.data.validation_groups if story.data else None
    warning = no_better_than_plain(students_of(story.records), story.teacher, groups)
    data = story.study.data
    images = f"{', '.join(source.reader for source in data.sources)} at {data.size}×{data.size}"
    return (
        f"<p>Images: {html.escape(images)}. {sum(counts.values())} trials: {outcomes}. {len(story.front)} students are "
        f"on the front.{teacher} {html.escape(warning)} "
        "Scores are those of the validation split, by which the students were chosen; the best of many is too good to "
        "be true.</p>"
    )


def _curves(story: ReportData, members: set[int]) -> str:
    stopped = sum(record.outcome == "stopped" for record in story.records)
    words = f"<p>{stopped} trials were stopped early (dotted, crossed where they ended).</p>" if stopped else ""
    return words + _chart(curves_figure(story.records, members))


def _importance(story: ReportData) -> str:
    if not story.importances:
        return "<p>Too few finished trials, or nothing that varied, to tell.</p>"
    return (
        "<p>Fraction of the spread of Dice over finished trials that each setting explains (fANOVA, Hutter et al. "
        "2014), among settings that every recipe has; with few trials, or settings tried unevenly, no more than a "
        "hint.</p>" + _chart(importance_figure(story.importances))
    )


def _progress(steps: Sequence[Step], most: float) -> str:
    return (
        f"<p>Hypervolume of Dice against log10 of parameters, from the point ({most:,.0f} parameters, Dice 0).</p>"
        + _pair(hypervolume_figure(steps, by="trials"), hypervolume_figure(steps, by="compute"))
    )


def _overlays(story: ReportData) -> str:
    if not story.overlays:
        return ""
    pictures = (
        f'<h3>Trial {number}</h3><img alt="predictions of trial {number}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        for number, content in story.overlays.items()
    )
    return "<p>Easy, typical and hard images by the teacher's Dice.</p>" + "\n".join(pictures)


def _data(story: ReportData) -> str:
    data = story.data
    if data is None:
        return ""
    size = story.study.data.size
    return (
        f"<p>{html.escape(', '.join(data.sources))}: {data.images} images at {size}×{size}; {data.train} to train on, "
        f"{data.validation} to validate, {data.test} locked away{_unlabelled(data)}. "
        f"Fingerprint of the images {data.fingerprint}, of the split {data.split}.</p>"
        + (f"<p>Caution: {html.escape(data.caution)}.</p>" if data.caution else "")
    )


def _unlabelled(data: DataSummary) -> str:
    return f"; {data.unlabelled} without masks taught through the teacher alone" if data.unlabelled else ""


def _table(students: Sequence[Student], standings: Standings) -> str:
    head, *rows = front_cells(students, standings)
    return f"{html_table(head, rows)}<p>{what_stands(students, standings)}.</p>"


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text."""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tr>{names}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _pair(left: go.Figure, right: go.Figure) -> str:
    return f'<div class="pair"><div>{_chart(left)}</div><div>{_chart(right)}</div></div>'


def _chart(figure: go.Figure) -> str:
    chart: str = figure.to_html(
        include_plotlyjs=False, full_html=False, config={"displaylogo": False, "responsive": True}
    )
    return chart
