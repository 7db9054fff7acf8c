"""``kdsearch confirm``: trains the likely front again, over folds, beside twins that are not distilled."""

from __future__ import annotations

import argparse
import os

from kdsearch.cli.confirmation import say, show_answers, show_plan, watch
from kdsearch.cli.logs import show_warnings
from kdsearch.cli.next_steps import command_line
from kdsearch.cli.terminal import terminal
from kdsearch.config.load import load_study, with_confirm, with_folders, with_search
from kdsearch.files.home import home_folder
from kdsearch.statistics.confirmation import dump_confirmation
from kdsearch.workflow.confirm import confirm, plan_confirmation, sealed_before

NOTHING_CONFIRMED = 1


def run(options: argparse.Namespace) -> int:
    """Confirms the study's front, or says with ``--dry-run`` how it would."""
    study = with_folders(load_study(options.study), options.data)
    study = with_search(study, trials=None, workers=options.workers)
    study = with_confirm(study, repetitions=options.repetitions)
    home, console = home_folder(os.environ), terminal(stderr=options.json, soft_wrap=False)
    show_warnings(console)
    if options.dry_run:
        show_plan(plan_confirmation(study, home), console)
        before = sealed_before(study, home, kind="confirm")
        say(console, f"{before or 'Nothing was sealed or trained; without --dry-run it is'}.")
        return 0
    words = [] if options.repetitions is None else ["--repetitions", str(options.repetitions)]
    events = confirm(study, home=home, environment=os.environ, anew=options.new_plan)
    found = watch(events, console, command=command_line("confirm", options.study, *words, data=options.data))
    if options.json:
        print(dump_confirmation(found))
        return 0
    show_answers(found, console)
    if not found.members:
        say(console, "No member was confirmed.")
        return NOTHING_CONFIRMED
    middle = str(found.members[len(found.members) // 2].params)
    say(console, f"pick:    {command_line('pick', options.study, '--params', middle, data=options.data)}")
    return 0
