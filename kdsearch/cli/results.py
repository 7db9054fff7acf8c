"""``kdsearch front``, ``report``, ``ui`` and ``sync``: what a study has found.

``front`` answers within a second, so heavy libraries are imported only by the commands that need them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import webbrowser
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.cli.next_steps import browse_lines, command_line
from kdsearch.cli.terminal import say, terminal
from kdsearch.config.load import read_study, with_folders
from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError, writing
from kdsearch.files.home import home_folder
from kdsearch.report.table import (
    FrontTable,
    front_csv,
    front_json,
    front_latex,
    front_markdown,
    latex_text,
    paths_latex,
    paths_markdown,
)
from kdsearch.report.teacher import no_better_than_plain
from kdsearch.tracking.location import Tracking, choose_tracking
from kdsearch.workflow.results import Front, front

if TYPE_CHECKING:
    from rich.console import Console

    from kdsearch.report.repeats import Repeat


def run_front(options: argparse.Namespace) -> int:
    """Prints the front as a table, JSON or CSV, and writes the charts asked for."""
    study = with_folders(read_study(options.study, options.settings), options.data)
    found = front(study, home_folder(os.environ))
    if options.json:
        print(front_json(found.members, found.standings))
    elif options.csv:
        print(front_csv(found.members, found.standings), end="")
    else:
        console = terminal()
        show_front(study, found, console, everything=options.all)
        if found.repeats:
            show_variants(found.repeats, console)
    if options.html is not None:
        _write_chart(options.html, study, found)
    if options.png is not None:
        _write_image(options.png, study, found)
    return 0


def show_front(study: StudyConfig, found: Front, console: Console, *, everything: bool = False) -> None:
    """Prints the front, and a warning if the teacher is no better than undistilled students."""
    repeats = found.repeats
    table = FrontTable(
        members=found.members,
        students=len(found.students),
        objectives=study.search.objectives,
        teacher=found.teacher,
        standings=found.standings,
        title_end=f", means of {len(repeats)} repeats on {repeats[0].part} images" if repeats else "",
    )
    console.print(table.render(width=console.width, everything=everything))
    warning = "" if repeats else no_better_than_plain(found.students, found.teacher, found.groups)
    if warning:
        say(console, warning, style="yellow")


def show_variants(repeats: Sequence[Repeat], console: Console) -> None:
    """Prints each recipe over the repeats of a study, and the verdict on distillation."""
    from kdsearch.report.repeats import variants_of, variants_table, verdict

    variants = variants_of(repeats)
    console.print(variants_table(variants, part=repeats[0].part))
    if sentence := verdict(variants):
        say(console, sentence)


def _write_chart(path: Path, study: StudyConfig, found: Front) -> None:
    from kdsearch.report.charts import front_page  # imports plotly

    page = front_page(
        study, students=found.students, front=found.members, teacher=found.teacher, standings=found.standings
    )
    _write_page(path, page, stderr=True)


def _write_image(path: Path, study: StudyConfig, found: Front) -> None:
    from kdsearch.report.front_image import write_front_image  # imports matplotlib

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_front_image(path, study, students=found.students, teacher=found.teacher)
    say(terminal(stderr=True), f"Written to {path}")


def run_report(options: argparse.Namespace) -> int:
    """Writes the report, or prints its tables."""
    from kdsearch.workflow.results import report

    study, home = with_folders(read_study(options.study, options.settings), options.data), home_folder(os.environ)
    resume = command_line("run", options)
    if options.markdown or options.latex:
        print(_tables(study, home, latex=options.latex, resume=resume))
        return 0
    page = report(study, home, resume=resume)
    _write_page(options.out or Path(f"{study.name}-report.html"), page)
    return 0


def _write_page(path: Path, page: str, *, stderr: bool = False) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    say(terminal(stderr=stderr), f"Written to {path}")


def _tables(study: StudyConfig, home: Path, *, latex: bool, resume: str) -> str:
    """The front, Dice by path and, for a study with repeats, its recipes over repeats."""
    from kdsearch.report.repeats import variants_latex, variants_markdown, variants_of, verdict
    from kdsearch.workflow.results import require_front

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


def run_sync(options: argparse.Namespace) -> int:
    """Uploads what MLflow lacks, and prints what it then has."""
    from kdsearch.workflow.run import sync

    study = with_folders(read_study(options.study, options.settings), options.data)
    for one, records in sync(study, home=home_folder(os.environ), environment=os.environ):
        if records is None:
            print(f"{one.name} has not been run yet.")
            continue
        counts = Counter(record.outcome for record in records)
        trials = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no trials yet"
        print(f"MLflow is up to date with study {one.name}: {trials}.")
    print("\n".join(browse_lines(options)))
    return 0


def run_ui(options: argparse.Namespace) -> int:
    """Starts MLflow's server, prints or opens the link to the front, and stops the server on Ctrl-C."""
    from kdsearch.tracking.server import serving, store_exists

    study = read_study(options.study, options.settings) if options.study is not None else None
    tracking = choose_tracking(study.tracking_uri if study else None, os.environ)
    if not store_exists(tracking):
        raise KdsearchError(f"{tracking.file}: there is no MLflow data here yet; kdsearch run creates it")
    front_view, *others = _pages(study.name, tracking) if study else ["/"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with serving(tracking, port=options.port) as server:
            link = f"{server.address}{front_view}"
            print("\n".join([link, *(f"{server.address}{page}" for page in others)]), flush=True)
            if options.open and not webbrowser.open(link):
                print("No browser could be opened; open the link yourself.", flush=True)
            if tracking.database:
                print("Press Ctrl-C to stop the server.", flush=True)
                server.end()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print("stopped", flush=True)
    return 0


def _pages(study: str, tracking: Tracking) -> list[str]:
    """The study's views, its front first; its experiment if it has no views."""
    from kdsearch.tracking.client import find_views  # imports mlflow

    return [*find_views(tracking, study).values()]


def _interrupt(_number: int, _frame: object) -> None:
    """Ends the wait; further signals do not disturb the shutdown."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(sys.stdout.fileno(), b"\nstopping ...\n")  # print may be in the middle of a line
    raise KeyboardInterrupt
