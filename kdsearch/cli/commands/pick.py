"""``kdsearch pick``: a student within a budget, as a folder to be shipped and as a version in MLflow's registry."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from kdsearch.cli.next_steps import command_line
from kdsearch.cli.picked import as_json, say_choice, say_nearest, say_result
from kdsearch.cli.terminal import terminal
from kdsearch.cli.walk import walk
from kdsearch.config.load import read_study, with_folders
from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError, writing
from kdsearch.export.description import Description
from kdsearch.export.folder import Form
from kdsearch.files.home import home_folder
from kdsearch.front.dominance import front_of
from kdsearch.front.rules import Budget
from kdsearch.tracking.location import Tracking, choose_tracking
from kdsearch.workflow.choosing import Candidates
from kdsearch.workflow.confirm import refitted
from kdsearch.workflow.pick import folder_of, open_candidates, pick, register, rule_named, ship

UNFINISHED = (
    "The study has not all the trials that its file asks for: others may be better. While they are trained, what is "
    "timed beside them takes too long."
)
NOTHING_WITHIN = 1
INTERRUPTED = 130


def run(options: argparse.Namespace) -> int:
    """Writes the student's folder and registers it; where nothing is within the budget, says so and returns 1."""
    if options.refit and (options.best or options.knee or options.smallest_within is not None):
        raise KdsearchError("--refit ships the student that was tested, by no rule; drop the rule, or drop --refit")
    study = with_folders(read_study(options.study), options.data)
    known = open_candidates(
        study, home_folder(os.environ), resume=command_line("run", options.study, data=options.data)
    )
    console = terminal(stderr=options.json, soft_wrap=True, highlight=False)
    if not known.complete:
        console.print(UNFINISHED, style="yellow")
    trial = options.trial
    if options.refit:
        known = refitted(known, trial=trial)
        trial = known.students[0].number
    if not options.refit and _asks_nothing(options) and console.is_terminal and sys.stdin.isatty():
        members = front_of(known.students, study.search.objectives, study.search.limits)
        trial = walk(members, study=study, home=known.home, console=console)
        if trial is None:
            return INTERRUPTED
    budget = budget_of(options)
    choice = pick(
        known,
        budget=budget,
        rule=rule_named(smallest_within=options.smallest_within, knee=options.knee),
        trial=trial,
        say=_saying(console),
    )
    if isinstance(choice, list):
        say_nearest(choice, budget, among=len(choice), console=console)
        return NOTHING_WITHIN
    say_choice(choice, console)
    tracking = None if options.no_registry else _require_tracking(study)
    folder = options.out or folder_of(known, choice.candidate.student)
    form = Form(preprocessing=options.with_preprocessing, int8_bound=options.int8_bound)
    with writing(folder):
        description = ship(known, choice, form=form, folder=folder, say=_saying(console))
    version = None if tracking is None else _register(known, folder, description, tracking=tracking)
    if options.json:
        print(json.dumps(as_json(choice, description, folder=folder, version=version), indent=2))
    else:
        say_result(description, folder=folder, version=version, console=console)
    return 0


def budget_of(options: argparse.Namespace) -> Budget:
    """The budget that was typed."""
    return Budget(
        params=options.params,
        macs=options.macs,
        latency_ms=options.latency,
        file_bytes=options.file_size,
        min_dice=options.min_dice,
        min_specificity=options.min_specificity,
    )


def _asks_nothing(options: argparse.Namespace) -> bool:
    """Whether neither budget nor rule was typed."""
    rules = (options.best, options.smallest_within, options.knee, options.trial)
    return not options.json and budget_of(options) == Budget() and all(rule is None or rule is False for rule in rules)


def _saying(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, style="dim")


def _require_tracking(study: StudyConfig) -> Tracking:
    """Before minutes of work, not after."""
    tracking = choose_tracking(study.tracking_uri, os.environ)
    try:
        tracking.require()
    except KdsearchError as error:
        raise KdsearchError(f"{error}; --no-registry does without") from error
    return tracking


def _register(known: Candidates, folder: Path, description: Description, *, tracking: Tracking) -> str:
    try:
        return register(known, folder, description, tracking=tracking)
    except KdsearchError as error:
        raise KdsearchError(f"{error}. {folder} is complete; the same command registers it") from error
