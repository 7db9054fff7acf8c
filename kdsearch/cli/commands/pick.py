"""``kdsearch pick``: a student within a budget, as a folder to be shipped and as a version in MLflow's registry."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable

from rich.console import Console

from kdsearch.cli.next_steps import command_line
from kdsearch.cli.picked import as_json, say_choice, say_nearest, say_result
from kdsearch.cli.terminal import terminal
from kdsearch.cli.walk import walk
from kdsearch.config.load import read_study, with_folders
from kdsearch.errors import KdsearchError
from kdsearch.export.folder import Form
from kdsearch.files.home import home_folder
from kdsearch.front.dominance import front_of
from kdsearch.front.rules import Budget
from kdsearch.workflow.pick import deliver, open_candidates, pick, rule_named, with_refit

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
    known, trial = with_refit(known, trial=options.trial, refit=options.refit)
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
    done = deliver(
        known,
        choice,
        form=Form(preprocessing=options.with_preprocessing, int8_bound=options.int8_bound),
        out=options.out,
        registry=None if options.no_registry else os.environ,
        without="--no-registry",
        say=_saying(console),
    )
    if options.json:
        print(json.dumps(as_json(choice, done.description, folder=done.folder, version=done.model_uri), indent=2))
    else:
        say_result(done.description, folder=done.folder, version=done.model_uri, console=console)
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
