"""``kdsearch init``: from a folder of images to a study file that fits them and this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from rich.console import Console

from kdsearch.cli.arguments import class_names
from kdsearch.cli.study_file import copy_schema
from kdsearch.cli.terminal import say, say_command, say_labeled, show_log, terminal
from kdsearch.errors import StudyFileError
from kdsearch.files.home import home_folder
from kdsearch.workflow.init import Found, inspect
from kdsearch.workflow.new_study import Plan, name_of, propose_size, write_study
from kdsearch.workflow.rehearsal import fit, rehearse

CLASS_NAME = "object"


def run_init(options: argparse.Namespace) -> int:
    """Shows what the folder contains, asks what it cannot know, and writes the study file; overwrites nothing."""
    name = options.name or name_of(options.folder)
    file = options.out or Path("studies", f"{name}.yaml")
    if file.exists():
        raise StudyFileError(f"{file}: exists already; name another file with --out")
    console = terminal()
    show_log(console, quiet=True)
    say(console, f"Reading the images in {options.folder} …")
    found = inspect(options.folder, home_folder(os.environ), table=options.table)
    for label, value in found.rows():
        say_labeled(console, label, value)
    _caution(found, console)
    asks = sys.stdin.isatty() and not options.yes
    plan = Plan(
        name=name,
        found=found,
        size=options.size or propose_size(found),
        class_names=options.class_name or (_asked(console, found) if asks else _usual(found)),
    )
    if found.numbers:
        found.named(plan.class_names)
    say(console, "Training on a few images to see how fast this machine is …")
    plan, seconds = fit(plan, rehearse(plan), minutes=options.minutes)
    write_study(plan, file, seconds=seconds)
    copy_schema(file)
    height, width = plan.shape
    say(console, f"Wrote {file}: {plan.trials} students, {plan.epochs} epochs each, at {width}×{height} pixels.")
    say(console, _time(seconds, options.minutes))
    say_command(console, f"look at the images:  {shlex.join(['kdsearch', 'data', str(file)])}")
    say_command(console, f"search:              {shlex.join(['kdsearch', 'run', str(file)])}")
    return 0


def _time(seconds: float, minutes: float) -> str:
    text = f"The search takes about {max(1, round(seconds / 60))} minutes here."
    longer = " Fewer students or epochs would not show much, so it takes longer than you asked for."
    return text + longer * (seconds > 60 * minutes)


def _caution(found: Found, console: Console) -> None:
    """Says what a user should change before a search."""
    if not any(entry.group for entry in found.entries):
        say(
            console,
            "If several images show one patient, scene or video, list them in a table with the columns image and "
            "group, and start again with --table FILE. Otherwise scores will be too high.",
        )
    if found.dataset.skipped:
        first = found.dataset.skipped[0]
        say(console, f"{len(found.dataset.skipped)} files are left out, such as {first}", style="yellow")


def _usual(found: Found) -> tuple[str, ...]:
    """Names for classes that the user does not name."""
    return found.names or (CLASS_NAME,)


def _asked(console: Console, found: Found) -> tuple[str, ...]:
    usual = ", ".join(_usual(found))
    numbers = ", ".join(map(str, found.numbers[1:]))
    what = f"Names of the classes {numbers}, or one name for all" if "," in numbers else "What do the masks outline"
    while True:
        answer = console.input(f"{what}? [{usual}] ", markup=False).strip() or usual
        try:
            names = class_names(answer)
            if found.numbers:
                found.named(names)
        except (argparse.ArgumentTypeError, StudyFileError) as error:
            say(console, str(error))
        else:
            return names
