"""``kdsearch front``: the students that no other student beats."""

from __future__ import annotations

import argparse
import os

from rich.console import Console

from kdsearch.cli.writing import writing
from kdsearch.config.load import load_study, with_folders
from kdsearch.files.home import home_folder
from kdsearch.front.members import front_of
from kdsearch.report.chart import front_page
from kdsearch.report.repeats import averaged, variants_of, variants_table
from kdsearch.report.table import front_csv, front_json, front_table
from kdsearch.search.repeats import gather_repeats
from kdsearch.search.store import open_store
from kdsearch.trials.record import students_of


def run(options: argparse.Namespace) -> int:
    """Prints the front in the form asked for, and writes the chart where ``--html`` says."""
    study = with_folders(load_study(options.study), options.data)
    home = home_folder(os.environ)
    store = open_store(study, home, create=False)
    repeats = gather_repeats(study, home) if study.repeats > 1 else ()
    students = averaged(repeats) if repeats else students_of(store.records())
    members = front_of(students, study.search.objectives, study.search.limits)
    if options.json:
        print(front_json(members))
    elif options.csv:
        print(front_csv(members), end="")
    else:
        part = f", means of {len(repeats)} repeats on {repeats[0].part} images" if repeats else ""
        Console().print(front_table(members, part=part))
        if repeats:
            Console().print(variants_table(variants_of(repeats), part=repeats[0].part))
    if options.html is not None:
        page = front_page(study, students=students, front=members, teacher=store.teacher())
        with writing(options.html):
            options.html.parent.mkdir(parents=True, exist_ok=True)
            options.html.write_text(page, encoding="utf-8")
        Console(stderr=True).print(f"Written to {options.html}", soft_wrap=True, highlight=False)
    return 0
