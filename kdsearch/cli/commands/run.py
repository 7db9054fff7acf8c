"""``kdsearch run``: runs a study, or resumes it."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from kdsearch.campaign.events import SearchStarted
from kdsearch.cli.live import LiveView
from kdsearch.cli.logs import show_warnings
from kdsearch.cli.next_steps import command_line, failures, look, next_steps
from kdsearch.cli.plain import PlainView
from kdsearch.cli.profile import Profile
from kdsearch.cli.terminal import terminal
from kdsearch.config.load import load_study, with_folders, with_search
from kdsearch.config.networks import MAY_HAVE_SEEN, AnyTeacher, TeacherConfig
from kdsearch.config.study import StudyConfig
from kdsearch.files.home import home_folder
from kdsearch.report.repeats import variants_of, variants_table, verdict
from kdsearch.report.table import front_table
from kdsearch.report.teacher import no_better_than_plain
from kdsearch.trials.record import TrialRecord
from kdsearch.workflow.pick import none_within
from kdsearch.workflow.results import front, front_of_one
from kdsearch.workflow.run import Run
from kdsearch.workflow.run import run as runs

NOTHING_MADE = 1


def run(options: argparse.Namespace) -> int:
    """Runs the study to its end; Ctrl-C stops it so that the same command resumes."""
    study = with_folders(load_study(options.study), options.data)
    study = with_search(study, trials=options.trials, workers=options.workers)
    home, console = home_folder(os.environ), terminal()
    show_warnings(console)
    codes = [_run_once(one, options, home, console) for one in runs(study, home=home, environment=os.environ)]
    if study.replicates > 1 and not any(codes):
        repeats = front(study, home).repeats
        variants = variants_of(repeats)
        console.print(variants_table(variants, part=repeats[0].part))
        if sentence := verdict(variants):
            console.print(sentence, soft_wrap=True, highlight=False)
    return max(codes)


def _run_once(one: Run, options: argparse.Namespace, home: Path, console: Console) -> int:
    """Shows one repeat while it runs, and what came of it; raises KeyboardInterrupt where it was stopped."""
    _announce(one.study, console)
    started = time.monotonic()
    try:
        records, page, account = _watch(one, options, console)
    except KeyboardInterrupt:
        one.events.close()
        console.print("\nStopped. What is finished is kept; the same command resumes:")
        console.print(f"  {_command(options)}", soft_wrap=True, highlight=False)
        raise
    if page is None:
        finished = f"Study {one.study.name} is finished: its trials are done. For more, say --trials N."
        console.print(finished, soft_wrap=True)
    else:
        console.print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")
    _say(account, console)
    for line in failures(records):
        console.print(line, soft_wrap=True, style="red")
    return _conclude(one, options, home, console, page=page)


def _watch(
    one: Run, options: argparse.Namespace, console: Console
) -> tuple[tuple[TrialRecord, ...], str | None, list[str]]:
    """Shows the events; returns the records, the front's page in MLflow if there was a search, and ``--profile``."""
    profile = Profile()
    view = LiveView(console) if console.is_terminal else PlainView()
    with view:
        while True:
            try:
                event = next(one.events)
            except StopIteration as stop:
                return stop.value, view.progress.page, profile.lines() if options.profile else []
            profile.handle(event, now=time.monotonic())
            view.show(event)
            if isinstance(event, SearchStarted):
                _say(look(study_file=options.study, tracking=one.tracking, page=event.page), console)


def _conclude(one: Run, options: argparse.Namespace, home: Path, console: Console, *, page: str | None) -> int:
    """Shows the front and what to type next."""
    found = front_of_one(one.study, home)
    if not found.members:
        none = none_within(found.students, one.study) if found.students else "No student was made."
        console.print(none, soft_wrap=True)
        return NOTHING_MADE
    console.print(front_table(found.members, found.standings))
    warning = no_better_than_plain(found.students, found.teacher, found.groups)
    if warning:
        console.print(warning, soft_wrap=True, highlight=False, style="yellow")
    steps = next_steps(found.members, study_file=options.study, data=options.data, tracking=one.tracking, page=page)
    _say(steps, console)
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
    signs = {"specificity": "≥"}
    given = {name: value for name, value in search.limits.model_dump().items() if value is not None}
    limits = "".join(f"; {name} {signs.get(name, '≤')} {value:,}" for name, value in given.items())
    sources = ", ".join(source.reader for source in data.sources)
    if data.unlabelled:
        names = ", ".join(source.reader for source in data.unlabelled)
        sources += f" (without masks: {names}, {100 * data.unlabelled_fraction:.0f} % of each batch)"
    objectives = ", ".join(search.objectives)
    workers = f"{search.workers} worker(s)" if search.workers else "one worker a core, or a few on a GPU"
    if search.executor == "ray":
        workers = f"{search.workers or 'as many as fit'} on Ray ({search.ray.address})"
    workers = "inline" if search.executor == "inline" else workers
    asked = f"{search.trials} trials by {search.sampler} for {objectives}{limits}"
    lines = (
        Text.assemble("Study ", (study.name, "bold"), f": {asked}"),
        f"images    {sources} at {data.size}×{data.size}; device {study.device}, {workers}",
        f"teacher   {teacher.title}{_what_it_takes(teacher, size=data.size)}",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def _what_it_takes(teacher: AnyTeacher, *, size: int) -> str:
    """What a user should know of it before it begins."""
    if teacher.file is not None:
        return f"; {MAY_HAVE_SEEN}"
    assert isinstance(teacher, TeacherConfig), "others are taken from a file"
    if (times := teacher.work(size)) == 1:
        return ""
    own = teacher.size or size
    return f"; trained first at {own}×{own}, about {times:.3g} times the work of one network at {size}×{size}"
