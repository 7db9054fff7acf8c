"""Shows a confirmation, or a test: its plan, how it goes, what it found."""

from __future__ import annotations

from collections.abc import Generator

from rich.console import Console

from kdsearch.campaign.events import DriverEvent
from kdsearch.cli.confirming import ConfirmView
from kdsearch.cli.live import duration
from kdsearch.config.quantity import format_quantity
from kdsearch.confirm.driver import ConfirmEvent, PlanFixed
from kdsearch.confirm.plan import Plan
from kdsearch.confirm.preparation import Prepared
from kdsearch.report.confirmation import Rows, answer_tables, cells_table, sentences
from kdsearch.statistics.confirmation import Confirmation
from kdsearch.statistics.power import power_of_no_worse, power_of_pooled_effect

EFFECTS = 2, 4
"""Points of Dice for which the power of a plan is printed."""


def watch(
    events: Generator[DriverEvent | ConfirmEvent, None, Confirmation], console: Console, *, command: str
) -> Confirmation:
    """Shows the events; returns the answers. An interrupt stops them, and ``command`` is what resumes."""
    try:
        with ConfirmView(console) as view:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    found: Confirmation = stop.value
                    return found
                view.show(event)
                if isinstance(event, PlanFixed):
                    show_plan(event.prepared, console)
                    say(console, f"Sealed {event.when}.")
    except KeyboardInterrupt:
        events.close()
        say(console, "\nStopped. What is finished is kept; the same command resumes:")
        say(console, f"  {command}")
        raise


def show_plan(prepared: Prepared, console: Console) -> None:
    """The plan, what it costs, and what its images can show."""
    plan = prepared.plan
    cells: Rows = [("student", "params", "searched", "role")]
    for arm in plan.arms:
        searched = "" if arm.role == "twin" or arm.searched is None else f"{100 * arm.searched:.1f}"
        cells.append((arm.name, format_quantity(arm.params), searched, arm.role))
    console.print(cells_table(cells, title=f"Plan {plan.digest} of study {plan.study}"))
    say(console, f"{_trainings(plan)}; about {duration(prepared.seconds)} by what the search took.")
    where = "once, and are open then" if plan.kind == "test" else "out of fold"
    ships = f" The student of seed {plan.ships} is the one to ship." if plan.kind == "test" else ""
    margin = f" Margin for a smaller student: {100 * plan.settings.margin:g} points." if plan.not_worse else ""
    say(console, f"{prepared.lesions} images with a lesion are scored {where}.{margin}{ships}")
    if power := _power(prepared):
        say(console, power)
    for warning in plan.warnings:
        say(console, f"Mind: {warning}.", style="yellow")


def _power(prepared: Prepared) -> str:
    """What the plan is likely to show, by simulations with the noise measured on BUSI; empty if it compares nothing."""
    plan, layout, words = prepared.plan, prepared.layout, []
    if plan.twins and layout.groups.size:
        powers = [100 * power_of_pooled_effect(layout, effect=points / 100) for points in EFFECTS]
        shares = " and ".join(
            f"{points:+d} points in {power:.0f} % of studies" for points, power in zip(EFFECTS, powers, strict=True)
        )
        words.append(f"shows a true effect of distillation of {shares}")
    if plan.not_worse and layout.groups.size:
        equal = 100 * power_of_no_worse(layout, margin=plan.settings.margin)
        words.append(f"shows that the next smaller of two equal students is no worse in {equal:.0f} %")
    return f"In simulated studies with noise as on BUSI, this plan {' and '.join(words)}." if words else ""


def _trainings(plan: Plan) -> str:
    folds, repetitions = len(plan.partitions[0]), len(plan.partitions)
    count = sum(1 for _ in plan.repeats())
    start = f"{count} trainings and {folds * repetitions} teachers: {len(plan.arms)} recipes"
    if plan.kind == "test":
        return f"{start}, {repetitions} seeds"
    places = "sources" if plan.settings.leave_one_source_out else "folds"
    pilot = " (a pilot; claims want three)" if plan.pilot else ""
    return f"{start}, {folds} {places}, {repetitions} repetition{'s' * (repetitions > 1)}{pilot}"


def show_answers(found: Confirmation, console: Console) -> None:
    """Tables, then sentences."""
    for table in answer_tables(found):
        console.print(table)
    for line in sentences(found):
        say(console, line)


def say(console: Console, text: str, *, style: str = "") -> None:
    """A line as it is, however long."""
    console.print(text, soft_wrap=True, highlight=False, style=style)
