"""``kdsearch confirm`` and ``kdsearch test``: honest scores, by cross-validation or on the locked test images."""

from __future__ import annotations

import argparse
import os
from collections.abc import Generator

from rich.console import Console

from kdsearch.cli.next_steps import command_line, pick_lines
from kdsearch.cli.progress import Event, duration
from kdsearch.cli.terminal import say, say_command, show_log, terminal
from kdsearch.cli.view import View
from kdsearch.config.load import load_study, with_confirm, with_folders, with_search
from kdsearch.config.quantity import format_quantity
from kdsearch.confirm.driver import PlanFixed
from kdsearch.confirm.plan import Plan
from kdsearch.confirm.preparation import Prepared
from kdsearch.files.home import home_folder
from kdsearch.report.confirmation import Rows, answer_tables, cells_table, sentences
from kdsearch.statistics.confirmation import Confirmation, Role, dump_confirmation
from kdsearch.statistics.power import power_of_no_worse, power_of_pooled_effect
from kdsearch.workflow.confirm import confirm, plan_confirmation, plan_test, score_locked, sealed_before

NOTHING_CONFIRMED = 1
EFFECTS = 2, 4
"""Dice points for which the power of a plan is printed."""
ROLES: dict[Role, str] = {"member": "on the front", "twin": "undistilled twin", "undistilled": "undistilled"}
"""Display names."""


def run_confirm(options: argparse.Namespace) -> int:
    """Cross-validates the front's students; with ``--dry-run``, shows the plan only."""
    home, console = home_folder(os.environ), _console(options)
    study = with_folders(load_study(options.study, options.settings), options.data)
    study = with_search(study, trials=None, workers=options.workers)
    study = with_confirm(study, repetitions=options.repetitions)
    if options.dry_run:
        show_plan(plan_confirmation(study, home), console)
        before = sealed_before(study, home, kind="confirm")
        say(console, f"{before or 'Nothing was stored or trained; run without --dry-run to start'}.")
        return 0
    words = [] if options.repetitions is None else ["--repetitions", str(options.repetitions)]
    resume = command_line("confirm", options, *words)
    events = confirm(study, home=home, environment=os.environ, anew=options.new_plan)
    found = _watch(events, console, resume=resume, quiet=options.quiet)
    if options.json:
        print(dump_confirmation(found))
        return 0
    _show_answers(found, console)
    if not found.members:
        say(console, "All trainings failed; see above.")
        return NOTHING_CONFIRMED
    if not options.quiet:
        middle = found.members[len(found.members) // 2].params
        for line in pick_lines(options, params=middle):
            say_command(console, line)
    return 0


def run_test(options: argparse.Namespace) -> int:
    """Scores one trial's settings on the locked test images; with ``--dry-run``, shows the plan only."""
    home, console = home_folder(os.environ), _console(options)
    study = with_folders(load_study(options.study, options.settings), options.data)
    study = with_search(study, trials=None, workers=options.workers)
    if options.dry_run:
        show_plan(plan_test(study, home, trial=options.trial), console)
        before = sealed_before(study, home, kind="test")
        say(console, f"{before or 'Nothing was scored or trained; run without --dry-run to start'}.")
        return 0
    resume = command_line("test", options, "--trial", str(options.trial))
    events = score_locked(study, trial=options.trial, home=home, environment=os.environ, again=options.again)
    found = _watch(events, console, resume=resume, quiet=options.quiet)
    if options.json:
        print(dump_confirmation(found))
        return 0
    _show_answers(found, console)
    if not options.quiet:
        say_command(console, f"pick:    {command_line('pick', options, '--refit')}")
    return 0


def _console(options: argparse.Namespace) -> Console:
    """Standard error if JSON goes to standard output."""
    console = terminal(stderr=options.json)
    show_log(console, quiet=options.quiet, verbose=options.verbose)
    return console


def _watch(events: Generator[Event, None, Confirmation], console: Console, *, resume: str, quiet: bool) -> Confirmation:
    """Shows the events and returns the answers; an interrupt stops them and prints the command ``resume``."""
    try:
        with View(console, quiet=quiet) as view:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    found: Confirmation = stop.value
                    return found
                view.show(event)
                if isinstance(event, PlanFixed) and not quiet:
                    show_plan(event.prepared, console)
                    say(console, f"Plan stored on {event.when}, before training.")
    except KeyboardInterrupt:
        events.close()
        say(console, "\nStopped. Finished trainings are kept. To resume:")
        say_command(console, f"  {resume}")
        raise


def show_plan(prepared: Prepared, console: Console) -> None:
    """The plan, what it costs, and what its images can show."""
    plan = prepared.plan
    cells: Rows = [("student", "params", "Dice % in the search", "role")]
    for arm in plan.arms:
        searched = "" if arm.role == "twin" or arm.searched is None else f"{100 * arm.searched:.1f}"
        cells.append((arm.name, format_quantity(arm.params), searched, ROLES[arm.role]))
    console.print(cells_table(cells, title=f"Plan {plan.digest} of study {plan.study}"))
    say(console, _trainings(plan))
    say(console, f"Estimated time: {duration(prepared.seconds)}, from how long the search took.")
    for line in (*_scoring(prepared), *_power(prepared)):
        say(console, line)
    for warning in plan.warnings:
        say(console, f"Warning: {warning}.", style="yellow")


def _trainings(plan: Plan) -> str:
    folds, repetitions = len(plan.partitions[0]), len(plan.partitions)
    teachers, count = folds * repetitions, sum(1 for _ in plan.repeats())
    start = f"{count} trainings and {teachers} teacher{'s' * (teachers > 1)}: {len(plan.arms)} students"
    if plan.kind == "test":
        return f"{start}, {repetitions} seeds."
    kind = "sources" if plan.settings.leave_one_source_out else "folds"
    pilot = " (a pilot; use 3 for publishable claims)" if plan.pilot else ""
    return f"{start}, {folds} {kind}, {repetitions} repetition{'s' * (repetitions > 1)}{pilot}."


def _scoring(prepared: Prepared) -> list[str]:
    plan = prepared.plan
    if plan.kind == "test":
        return [
            f"{prepared.lesions} locked test images with a lesion are scored, which uses up the test set.",
            f"The student with seed {plan.ships} is the one to export.",
        ]
    lines = [f"{prepared.lesions} images with a lesion are scored, each by networks not trained on it."]
    margin = f"{100 * plan.settings.margin:g} Dice points"
    return [*lines, f"A smaller student counts as equally good within {margin}."] if plan.not_worse else lines


def _power(prepared: Prepared) -> list[str]:
    """What the plan is likely to show, from simulations with the noise measured on BUSI."""
    plan, layout, lines = prepared.plan, prepared.layout, []
    if plan.twins and layout.groups.size:
        powers = [100 * power_of_pooled_effect(layout, effect=points / 100) for points in EFFECTS]
        shares = " and ".join(
            f"{points:+d} points in {power:.0f} %" for points, power in zip(EFFECTS, powers, strict=True)
        )
        lines.append(f"Power (simulated, noise as on BUSI): detects an effect of distillation of {shares} of studies.")
    if plan.not_worse and layout.groups.size:
        equal = 100 * power_of_no_worse(layout, margin=plan.settings.margin)
        lines.append(f"If the next smaller of two students is equally good, this is shown in {equal:.0f} % of studies.")
    return lines


def _show_answers(found: Confirmation, console: Console) -> None:
    for table in answer_tables(found):
        console.print(table)
        console.print()
    for line in sentences(found):
        say(console, line, style="yellow" if line.startswith("Warning") else "")
