"""``kdsearch run``: runs a study, or resumes it."""

from __future__ import annotations

import argparse
import logging
import os
import time

from rich.console import Console
from rich.logging import RichHandler

from kdsearch.cli.command_line import command_line
from kdsearch.cli.conclusion import failures, look, next_steps
from kdsearch.cli.live import LiveView
from kdsearch.cli.plain import PlainView
from kdsearch.cli.profile import Profile
from kdsearch.config.load import load_study, with_folders, with_search
from kdsearch.config.study import StudyConfig, repeats_of
from kdsearch.files.home import home_folder
from kdsearch.front.members import front_of
from kdsearch.report.repeats import variants_of, variants_table
from kdsearch.report.table import front_table
from kdsearch.search.driver import run_study
from kdsearch.search.events import Searching
from kdsearch.search.repeats import gather_repeats
from kdsearch.tracking.location import choose_tracking
from kdsearch.trials.record import TrialRecord, students_of
from kdsearch.workflow.pick import none_within

NOTHING_MADE = 1


def run(options: argparse.Namespace) -> int:
    """Runs the study to its end; Ctrl-C stops it so that the same command resumes."""
    study = with_folders(load_study(options.study), options.data)
    study = with_search(study, trials=options.trials, workers=options.workers)
    codes = [_run_once(one, options) for one in repeats_of(study)]
    if study.repeats > 1 and not any(codes):
        repeats = gather_repeats(study, home_folder(os.environ))
        Console().print(variants_table(variants_of(repeats), part=repeats[0].part))
    return max(codes)


def _run_once(study: StudyConfig, options: argparse.Namespace) -> int:
    """Runs one repeat; raises KeyboardInterrupt where it was stopped."""
    tracking = choose_tracking(study.tracking_uri, os.environ)
    console = Console()
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False, show_time=False)],
    )
    _announce(study, console)
    view = LiveView(console) if console.is_terminal else PlainView()
    profile = Profile()
    started = time.monotonic()
    driver = run_study(study, home=home_folder(os.environ), tracking=tracking)
    try:
        with view:
            while True:
                event = next(driver)
                profile.handle(event, now=time.monotonic())
                view.show(event)
                if isinstance(event, Searching):
                    _say(look(study_file=options.study, tracking=tracking, page=event.page), console)
    except StopIteration as stop:
        records: tuple[TrialRecord, ...] = stop.value
    except KeyboardInterrupt:
        driver.close()
        console.print("\nStopped. What is finished is kept; the same command resumes:")
        console.print(f"  {_command(options)}", soft_wrap=True, highlight=False)
        raise
    if view.progress.page is None:
        console.print(f"Study {study.name} is finished: its trials are done. For more, say --trials N.", soft_wrap=True)
    else:
        console.print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")
    for line in profile.lines() if options.profile else []:
        console.print(line, soft_wrap=True, highlight=False)
    for line in failures(records):
        console.print(line, soft_wrap=True, style="red")
    students = students_of(records)
    members = front_of(students, study.search.objectives, study.search.limits)
    if not members:
        console.print(none_within(students, study) if students else "No student was made.", soft_wrap=True)
        return NOTHING_MADE
    console.print(front_table(members))
    page = view.progress.page
    _say(
        next_steps(members, study_file=options.study, data=options.data, tracking=tracking, page=page),
        console,
    )
    return 0


def _say(lines: list[str], console: Console) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def _command(options: argparse.Namespace) -> str:
    """What was typed, so that it can be typed again."""
    words = []
    for name, value in (("--trials", options.trials), ("--workers", options.workers)):
        words += [name, str(value)] if value is not None else []
    words += ["--profile"] if options.profile else []
    return command_line("run", options.study, *words, data=options.data)


def _announce(study: StudyConfig, console: Console) -> None:
    data, search, teacher = study.data, study.search, study.teacher
    signs = {"empty_share": "≥"}
    given = {name: value for name, value in search.limits.model_dump().items() if value is not None}
    limits = "".join(f"; {name} {signs.get(name, '≤')} {value:,}" for name, value in given.items())
    sources = ", ".join(source.reader for source in data.sources)
    objectives = ", ".join(search.objectives)
    workers = f"{search.workers} worker(s)" if search.workers else "one worker a core or GPU"
    if search.executor == "ray":
        workers = f"{search.workers or 'as many as fit'} on Ray ({search.ray.address})"
    workers = "inline" if search.executor == "inline" else workers
    lines = (
        f"Study [bold]{study.name}[/]: {search.trials} trials by {search.sampler} for {objectives}{limits}",
        f"images    {sources} at {data.size}×{data.size}; device {study.device}, {workers}",
        f"teacher   {teacher.architecture} on {teacher.encoder}, {teacher.checkpoint or teacher.weights}",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
