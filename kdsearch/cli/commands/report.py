"""``kdsearch report``: a study as one HTML file, or its tables for a paper."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console

from kdsearch.cli.command_line import command_line
from kdsearch.cli.writing import writing
from kdsearch.config.load import dump_study, load_study, with_folders
from kdsearch.errors import KdsearchError
from kdsearch.files.home import home_folder
from kdsearch.front.members import front_of
from kdsearch.measure.environment import installed_packages
from kdsearch.report.page import Story, report_page
from kdsearch.report.repeats import averaged, variants_latex, variants_markdown, variants_of
from kdsearch.report.table import front_latex, front_markdown, paths_latex, paths_markdown
from kdsearch.search.pictures import Pictures
from kdsearch.search.preparation import open_materials
from kdsearch.search.repeats import gather_repeats
from kdsearch.search.store import open_store
from kdsearch.trials.record import students_of


def run(options: argparse.Namespace) -> int:
    """Writes the report, or prints the tables."""
    study = with_folders(load_study(options.study), options.data)
    home = home_folder(os.environ)
    store = open_store(study, home, create=False)
    records = tuple(record for record in store.records() if record.outcome != "running")
    students = students_of(records)
    if not students:
        command = command_line("run", options.study, data=options.data)
        raise KdsearchError(f"study {study.name} has no finished student yet; go on with {command}")
    repeats = gather_repeats(study, home) if study.repeats > 1 else ()
    shown = averaged(repeats) if repeats else students
    front = front_of(shown, study.search.objectives, study.search.limits)
    if options.markdown or options.latex:
        tables = (front_markdown, paths_markdown) if options.markdown else (front_latex, paths_latex)
        print(f"{tables[0](front)}\n\n{tables[1](shown)}")
        if repeats:
            print(f"\n{(variants_markdown if options.markdown else variants_latex)(variants_of(repeats))}")
        return 0
    pictures = Pictures(study, open_materials(study, home, data=store.data()), home)
    story = Story(
        study=study,
        records=records,
        front=front,
        teacher=store.teacher(),
        data=store.data(),
        importances=store.importances(),
        overlays={member.number: pictures.sheet(member) for member in front if pictures.has_weights(member)},
        study_text=dump_study(study),
        environment=installed_packages(),
        variants=variants_of(repeats) if repeats else (),
    )
    place = options.out or Path(f"{study.name}-report.html")
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(report_page(story), encoding="utf-8")
    Console(soft_wrap=True, highlight=False).print(f"Written to {place}")
    return 0
