"""``kdsearch test``: opens the locked test images, once and on the record."""

from __future__ import annotations

import argparse
import os

from kdsearch.cli.confirmation import say, show_answers, show_plan, watch
from kdsearch.cli.logs import show_warnings
from kdsearch.cli.next_steps import command_line
from kdsearch.cli.terminal import terminal
from kdsearch.config.load import load_study, with_folders, with_search
from kdsearch.files.home import home_folder
from kdsearch.statistics.confirmation import dump_confirmation
from kdsearch.workflow.confirm import plan_test, score_locked, sealed_before


def run(options: argparse.Namespace) -> int:
    """Tests the trial's recipe, or says with ``--dry-run`` how it would be."""
    home, console = home_folder(os.environ), terminal(stderr=options.json)
    show_warnings(console)
    study = with_search(with_folders(load_study(options.study), options.data), trials=None, workers=options.workers)
    if options.dry_run:
        show_plan(plan_test(study, home, trial=options.trial), console)
        before = sealed_before(study, home, kind="test")
        say(console, f"{before or 'Nothing was opened or trained; without --dry-run it is'}.")
        return 0
    words = ("--trial", str(options.trial))
    events = score_locked(study, trial=options.trial, home=home, environment=os.environ, again=options.again)
    found = watch(events, console, command=command_line("test", options.study, *words, data=options.data))
    if options.json:
        print(dump_confirmation(found))
        return 0
    show_answers(found, console)
    say(console, f"ship:    {command_line('pick', options.study, '--refit', data=options.data)}")
    return 0
