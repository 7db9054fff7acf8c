"""``kdsearch data``: what a study's images are, and which of them a person should look at."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from kdsearch.cli.terminal import terminal
from kdsearch.config.load import load_study, with_folders
from kdsearch.data.masks import summed_up_again
from kdsearch.errors import writing
from kdsearch.files.home import home_folder
from kdsearch.report.confirmation import cells_table
from kdsearch.workflow.data import audit, page_of

FIRST = 4
"""Images of a finding that are named in the terminal."""


def run(options: argparse.Namespace) -> int:
    """Prints tables and findings, and writes the page."""
    study = with_folders(load_study(options.study), options.data)
    found = audit(study, home_folder(os.environ))
    console = terminal(soft_wrap=True, highlight=False)
    for title, table in (("Images by source and label", found.composition), ("Parts by label", found.parts)):
        if table:
            console.print(cells_table(list(table), title=title))
    for line in found.files:
        console.print(line)
    for remark in found.passed_over:
        more = "" if len(remark.names) <= FIRST else " …"
        line = f"{remark}: {', '.join(remark.names[:FIRST])}{more}"
        console.print(line)
    for line in found.cautions:
        console.print(line)
    for finding in found.findings:
        named = ", ".join(" = ".join(together) for together in finding.images[:FIRST])
        more = "" if len(finding.images) <= FIRST else " …"
        console.print(
            f"{len(finding.ids)} {finding.what}: {named}{more}", soft_wrap=True, highlight=False, markup=False
        )
    for line in summed_up_again(found.skipped):
        console.print(f"left out: {line}", style="yellow")
    page = options.out or Path(f"{study.name}-data.html")
    with writing(page):
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(page_of(found), encoding="utf-8")
    console.print(f"Written to {page}")
    return 0
