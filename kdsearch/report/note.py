"""A study in Markdown, for the page that MLflow shows of it."""

from __future__ import annotations

from collections.abc import Sequence

from kdsearch.config.space import dimensions
from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import DataSummary
from kdsearch.report.table import front_markdown, what_stands
from kdsearch.statistics.selection import NOTHING_KNOWN, Standings
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Scores

MOST_ROWS = 40
"""MLflow keeps no more than eight thousand characters."""
SCORES = (
    "Scores are those of the validation split, by which the students were chosen. `front.html` shows the "
    "front, `study.yaml` is what ran; runs of the front's members hold weights and pictures."
)
PICK = "Pick one: `kdsearch pick STUDY.yaml --params 100k`, `--smallest-within 0.01` or `--knee`."


def study_note(
    study: StudyConfig,
    *,
    data: DataSummary | None,
    teacher: Scores | None,
    members: Sequence[Student],
    students: int,
    standings: Standings = NOTHING_KNOWN,
) -> str:
    """What was studied, on what data, the front as a table, and how to pick."""
    paragraphs = (
        f"# {study.name}",
        _searched(study),
        _data(study, data) if data is not None else "",
        f"Teacher: {study.teacher.title}: {teacher.headline()}." if teacher else "",
        f"## Front: {len(members)} of {students} finished students",
        front_markdown(members[:MOST_ROWS], standings),
        f"and {len(members) - MOST_ROWS} larger ones, in `front.html`." if len(members) > MOST_ROWS else "",
        f"{what_stands(members, standings)}." if members else "",
        SCORES,
        PICK,
    )
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _searched(study: StudyConfig) -> str:
    search = study.search
    names = ", ".join(f"`{name}`" for name in dimensions(study)) or "nothing"
    return f"{search.trials} students by {search.sampler}, for {', '.join(search.objectives)}; searched: {names}."


def _data(study: StudyConfig, data: DataSummary) -> str:
    size = study.data.size
    unlabelled = f"; {data.unlabelled} without masks taught through the teacher alone" if data.unlabelled else ""
    return (
        f"Data: {', '.join(data.sources)}, {data.images} images at {size}×{size}: {data.train} to train on, "
        f"{data.validation} to validate, {data.test} locked away{unlabelled}."
        + (f" Caution: {data.caution}." if data.caution else "")
    )
