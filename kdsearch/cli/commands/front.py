"""``kdsearch front``: the students that no other student beats."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console

from kdsearch.cli.writing import writing
from kdsearch.config.load import load_study, with_folders
from kdsearch.config.study import StudyConfig
from kdsearch.files.home import home_folder
from kdsearch.front.members import front_of
from kdsearch.report.table import front_csv, front_json, front_table
from kdsearch.search.store import StudyStore, open_store
from kdsearch.trials.record import Student, students_of


def run(options: argparse.Namespace) -> int:
    """Prints the front in the form asked for, and writes the chart where ``--html`` says."""
    study = with_folders(load_study(options.study), options.data)
    home = home_folder(os.environ)
    store = open_store(study, home, create=False)
    if study.repeats > 1:
        students = _show_repeats(study, home, options)
    else:
        students = students_of(store.records())
        _show(students, study, options)
    if options.html is not None:
        _write_chart(options.html, study, students=students, store=store)
    return 0


def _show(students: tuple[Student, ...], study: StudyConfig, options: argparse.Namespace, *, part: str = "") -> None:
    members = front_of(students, study.search.objectives, study.search.limits)
    if options.json:
        print(front_json(members))
    elif options.csv:
        print(front_csv(members), end="")
    else:
        Console().print(front_table(members, part=part))


def _show_repeats(study: StudyConfig, home: Path, options: argparse.Namespace) -> tuple[Student, ...]:
    """Shows the repeats' averages, and returns them."""
    from kdsearch.report.repeats import averaged, variants_of, variants_table
    from kdsearch.search.repeats import gather_repeats  # brings torch, with which test images are scored

    repeats = gather_repeats(study, home)
    students = averaged(repeats)
    of = f", means of {len(repeats)} repeats on {repeats[0].part} images" if repeats else ""
    _show(students, study, options, part=of)
    if repeats and not options.json and not options.csv:
        Console().print(variants_table(variants_of(repeats), part=repeats[0].part))
    return students


def _write_chart(path: Path, study: StudyConfig, *, students: tuple[Student, ...], store: StudyStore) -> None:
    from kdsearch.report.chart import front_page  # brings plotly

    front = front_of(students, study.search.objectives, study.search.limits)
    page = front_page(study, students=students, front=front, teacher=store.teacher())
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    Console(stderr=True).print(f"Written to {path}", soft_wrap=True, highlight=False)
