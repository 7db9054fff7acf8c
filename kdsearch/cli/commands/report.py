"""``kdsearch report``: a study as one HTML file, or its tables for a paper."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from kdsearch.cli.next_steps import command_line
from kdsearch.cli.terminal import terminal
from kdsearch.config.load import read_study, with_folders
from kdsearch.config.study import StudyConfig
from kdsearch.errors import writing
from kdsearch.files.home import home_folder
from kdsearch.report.repeats import variants_latex, variants_markdown, variants_of, verdict
from kdsearch.report.table import front_latex, front_markdown, latex_text, paths_latex, paths_markdown
from kdsearch.workflow.results import report, require_front


def run(options: argparse.Namespace) -> int:
    """Writes the report, or prints the tables."""
    study = with_folders(read_study(options.study), options.data)
    home = home_folder(os.environ)
    resume = command_line("run", options.study, data=options.data)
    if options.markdown or options.latex:
        print(_tables(study, home, latex=options.latex, resume=resume))
        return 0
    page = report(study, home, resume=resume)
    place = options.out or Path(f"{study.name}-report.html")
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(page, encoding="utf-8")
    terminal(soft_wrap=True, highlight=False).print(f"Written to {place}")
    return 0


def _tables(study: StudyConfig, home: Path, *, latex: bool, resume: str) -> str:
    """The front, Dice by path, and the variants of a repeated study."""
    found = require_front(study, home, resume=resume)
    if latex:
        tables = [front_latex(found.members, found.standings), paths_latex(found.students)]
    else:
        tables = [front_markdown(found.members, found.standings), paths_markdown(found.students)]
    if found.repeats:
        variants = variants_of(found.repeats)
        tables.append((variants_latex if latex else variants_markdown)(variants))
        if sentence := verdict(variants):
            tables.append(latex_text(sentence) if latex else sentence)
    return "\n\n".join(tables)
