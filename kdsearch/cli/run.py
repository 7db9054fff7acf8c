"""``kdsearch run``: runs a study, or resumes it."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from kdsearch.campaign.driver import workers_of
from kdsearch.campaign.events import SearchStarted
from kdsearch.cli.next_steps import browse_lines, command_line, confirm_line, pick_lines
from kdsearch.cli.profile import Profile
from kdsearch.cli.results import show_front, show_variants
from kdsearch.cli.terminal import say, say_command, show_log, terminal
from kdsearch.cli.view import View
from kdsearch.config.load import load_study, with_folders, with_search
from kdsearch.config.networks import MAY_HAVE_SEEN, AnyTeacher, TeacherConfig
from kdsearch.config.quantity import format_quantity
from kdsearch.config.search import Limits, Objective, Sampler
from kdsearch.config.study import StudyConfig
from kdsearch.config.task import Task
from kdsearch.distill.batches import choose_device
from kdsearch.files.home import home_folder, samples_folder
from kdsearch.report.words import teacher_words
from kdsearch.trials.record import TrialRecord
from kdsearch.workflow.pick import none_within
from kdsearch.workflow.results import front, front_of_one
from kdsearch.workflow.run import Run
from kdsearch.workflow.run import run as runs

NO_STUDENTS = 1
OBJECTIVES: dict[Objective, str] = {
    "dice": "Dice",
    "params": "parameters",
    "macs": "MACs",
    "latency_ms": "latency",
    "specificity": "specificity",
}
MAXIMIZED: tuple[Objective, ...] = ("dice", "specificity")
SAMPLERS: dict[Sampler, str] = {
    "tpe": "TPE",
    "gp": "Gaussian process",
    "nsga2": "NSGA-II",
    "nsga3": "NSGA-III",
    "random": "random",
    "grid": "grid",
}


def run_study(options: argparse.Namespace) -> int:
    """Runs the study until it is complete; Ctrl-C stops it so that the same command resumes it."""
    home, console = home_folder(os.environ), terminal()
    show_log(console, quiet=options.quiet, verbose=options.verbose)
    study = with_folders(load_study(options.study, options.settings), options.data)
    study = with_search(study, trials=options.trials, workers=options.workers)
    codes = [_run_once(one, options, home, console) for one in runs(study, home=home, environment=os.environ)]
    if study.replicates > 1 and not any(codes):
        show_variants(front(study, home).repeats, console)
    return max(codes)


def _run_once(one: Run, options: argparse.Namespace, home: Path, console: Console) -> int:
    """Shows one repeat while it runs, then its result; raises KeyboardInterrupt if it was stopped."""
    if not options.quiet:
        for line in header(one.study):
            say(console, line)
    view, profile, started = View(console, quiet=options.quiet), Profile(), time.monotonic()
    try:
        records = _watch(one, view, profile, options, console)
    except KeyboardInterrupt:
        one.events.close()
        say(console, "\nStopped. Finished trials are kept. To resume:")
        say_command(console, f"  {_command(options)}")
        raise
    page = view.progress.page
    if not options.quiet:
        _say_done(records, options, console, minutes=None if page is None else (time.monotonic() - started) / 60)
    if options.profile and (table := profile.table()) is not None:
        console.print(table)
    for line in failures(records):
        say(console, line, style="red")
    return _conclude(one, options, home, console, page=page)


def _watch(
    one: Run, view: View, profile: Profile, options: argparse.Namespace, console: Console
) -> tuple[TrialRecord, ...]:
    """Shows all events; returns the records of the ended trials."""
    with view:
        while True:
            try:
                event = next(one.events)
            except StopIteration as stop:
                records: tuple[TrialRecord, ...] = stop.value
                return records
            profile.handle(event, now=time.monotonic())
            view.show(event)
            if isinstance(event, SearchStarted) and not options.quiet:
                for line in browse_lines(options, tracking=one.tracking, page=event.page):
                    say_command(console, line)


def _conclude(one: Run, options: argparse.Namespace, home: Path, console: Console, *, page: str | None) -> int:
    """Shows the front and what to type next."""
    found = front_of_one(one.study, home)
    if not found.members:
        say(console, none_within(found.students, one.study) if found.students else "All trainings failed; see above.")
        return NO_STUDENTS
    show_front(one.study, found, console)
    if not options.quiet:
        middle = found.members[len(found.members) // 2].scores.params
        for line in (
            *browse_lines(options, tracking=one.tracking, page=page),
            confirm_line(options),
            *pick_lines(options, params=middle, samples=samples_folder(home, one.study.name)),
        ):
            say_command(console, line)
    return 0


def _say_done(
    records: Iterable[TrialRecord], options: argparse.Namespace, console: Console, *, minutes: float | None
) -> None:
    """How long the search took; if the study was complete before, how to train more."""
    if minutes is not None:
        say(console, f"Done in {minutes:.1f} minutes.")
        return
    trained = sum(record.outcome != "rejected" for record in records)
    say(console, f"This study is complete ({trained} trials). To train more:")
    say_command(console, f"  {command_line('run', options, '--trials', str(2 * trained))}")


def failures(records: Iterable[TrialRecord]) -> list[str]:
    """One line per reason why trials failed, the most frequent first."""
    reasons = Counter(record.reason for record in records if record.outcome == "failed")
    return [f"{count} trial{'s' * (count > 1)} failed: {reason}" for reason, count in reasons.most_common()]


def _command(options: argparse.Namespace) -> str:
    """The command line, so that it can be typed again."""
    words = []
    for name, value in (("--trials", options.trials), ("--workers", options.workers)):
        words += [name, str(value)] if value is not None else []
    for name, given in (("--profile", options.profile), ("--quiet", options.quiet), ("--verbose", options.verbose)):
        words += [name] if given else []
    return command_line("run", options, *words)


def header(study: StudyConfig) -> list[str]:
    """What the study is about to do, in a few lines."""
    data, search, teacher = study.data, study.search, study.teacher
    sources = ", ".join(source.reader for source in data.sources)
    if data.unlabelled:
        names = ", ".join(source.reader for source in data.unlabelled)
        sources += f" (without masks: {names}, {100 * data.unlabelled_fraction:.0f} % of each batch)"
    limits = _limits(search.limits)
    return [
        f"Study {study.name}: {search.trials} trials ({SAMPLERS[search.sampler]}), {_goals(search.objectives)}",
        *([f"limits    {', '.join(limits)}"] if limits else []),
        f"images    {sources} at {data.task.describe_size()}",
        f"workers   {_workers(study)}",
        f"teacher   {teacher_words(teacher)}{_caveat(teacher, data.task)}",
    ]


def _goals(objectives: Sequence[Objective]) -> str:
    """``maximize Dice, minimize parameters and MACs``."""
    up = " and ".join(OBJECTIVES[one] for one in objectives if one in MAXIMIZED)
    down = " and ".join(OBJECTIVES[one] for one in objectives if one not in MAXIMIZED)
    return ", ".join([*([f"maximize {up}"] if up else []), *([f"minimize {down}"] if down else [])])


def _limits(limits: Limits) -> list[str]:
    sizes = ((limits.params, "parameters"), (limits.macs, "MACs"))
    words = [f"at most {format_quantity(most)} {name}" for most, name in sizes if most is not None]
    return words if limits.min_specificity is None else [*words, f"specificity at least {limits.min_specificity:g}"]


def _workers(study: StudyConfig) -> str:
    search = study.search
    if search.executor == "ray":
        return f"{search.workers or 'as many as fit'} on Ray ({search.ray.address})"
    device = choose_device("auto").type if study.device == "auto" else study.device
    inline = ", in the main process" if search.executor == "inline" else ""
    return f"{workers_of(study, device=device)} on {device.upper()}{inline}"


def _caveat(teacher: AnyTeacher, task: Task) -> str:
    """What a user should know about the teacher before it is trained or read."""
    if teacher.file is not None:
        return f"; {MAY_HAVE_SEEN}"
    assert isinstance(teacher, TeacherConfig), "the other kinds come from a file"
    if (times := teacher.work(task)) == 1:
        return ""
    own = task.describe_size() if teacher.size is None else f"{teacher.size}×{teacher.size}"
    return f"; training it at {own} takes about {times:.3g} times as long as one network at {task.describe_size()}"
