"""``kdsearch front``: the students that no other student beats."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from kdsearch.cli.terminal import terminal
from kdsearch.config.load import read_study, with_folders
from kdsearch.config.study import StudyConfig
from kdsearch.errors import writing
from kdsearch.files.home import home_folder
from kdsearch.report.table import front_csv, front_json, front_table
from kdsearch.report.teacher import no_better_than_plain
from kdsearch.workflow.results import Front, front


def run(options: argparse.Namespace) -> int:
    """Prints the front in the form asked for, and writes the chart where ``--html`` says."""
    study = with_folders(read_study(options.study), options.data)
    found = front(study, home_folder(os.environ))
    if options.json:
        print(front_json(found.members, found.standings))
    elif options.csv:
        print(front_csv(found.members, found.standings), end="")
    else:
        _show(found)
    if options.html is not None:
        _write_chart(options.html, study, found)
    return 0


def _show(found: Front) -> None:
    """The table; of a repeated study, its variants too."""
    if not found.repeats:
        terminal().print(front_table(found.members, found.standings))
        warning = no_better_than_plain(found.students, found.teacher, found.groups)
        if warning:
            terminal().print(warning, soft_wrap=True, highlight=False, style="yellow")
        return
    from kdsearch.report.repeats import variants_of, variants_table, verdict

    part = found.repeats[0].part
    terminal().print(front_table(found.members, part=f", means of {len(found.repeats)} repeats on {part} images"))
    variants = variants_of(found.repeats)
    terminal().print(variants_table(variants, part=part))
    if sentence := verdict(variants):
        terminal().print(sentence, soft_wrap=True, highlight=False)


def _write_chart(path: Path, study: StudyConfig, found: Front) -> None:
    from kdsearch.report.chart import front_page  # brings plotly

    page = front_page(
        study, students=found.students, front=found.members, teacher=found.teacher, standings=found.standings
    )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    terminal(stderr=True).print(f"Written to {path}", soft_wrap=True, highlight=False)
