"""``kdsearch pick``: exports a student within a budget and registers it in MLflow."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from kdsearch.cli.next_steps import command_line, predict_command
from kdsearch.cli.terminal import LABEL_WIDTH, say, say_command, say_labeled, terminal
from kdsearch.cli.walk import walk
from kdsearch.config.load import read_study, with_folders
from kdsearch.config.quantity import format_quantity
from kdsearch.errors import KdsearchError
from kdsearch.export.description import Description
from kdsearch.export.folder import Form
from kdsearch.files.home import home_folder, samples_folder
from kdsearch.front.dominance import front_of
from kdsearch.front.rules import Budget, Candidate, nearest_to
from kdsearch.workflow.choosing import Choice
from kdsearch.workflow.pick import deliver, open_candidates, pick, rule_named, with_refit

UNFINISHED = (
    "This study is not finished, so a better student may still turn up. Latency measured while it trains is too high."
)
NOTHING_WITHIN = 1
INTERRUPTED = 130


def run_pick(options: argparse.Namespace) -> int:
    """Writes the student's folder and registers it; if no student fits the budget, says so and returns 1."""
    if options.refit and (options.best or options.knee or options.smallest_within is not None):
        raise KdsearchError("--refit cannot be combined with --best, --knee or --smallest-within")
    study = with_folders(read_study(options.study, options.settings), options.data)
    resume = command_line("run", options)
    known, console = open_candidates(study, home_folder(os.environ), resume=resume), terminal(stderr=options.json)
    if not known.complete:
        say(console, UNFINISHED, style="yellow")
    known, trial = with_refit(known, trial=options.trial, refit=options.refit)
    if not options.refit and _asks_nothing(options) and console.is_terminal and sys.stdin.isatty():
        members = front_of(known.students, study.search.objectives, study.search.limits)
        trial = walk(members, study=study, home=known.home, console=console)
        if trial is None:
            return INTERRUPTED
    budget = budget_of(options)
    rule = rule_named(smallest_within=options.smallest_within, knee=options.knee)
    choice = pick(known, budget=budget, rule=rule, trial=trial, say=_dimly(console))
    if isinstance(choice, list):
        say(console, _nearest(choice, budget))
        return NOTHING_WITHIN
    _show_choice(choice, options, console)
    form = Form(preprocessing=options.with_preprocessing, int8_bound=options.int8_bound, latency=not options.no_latency)
    done = deliver(
        known,
        choice,
        form=form,
        out=options.out,
        registry=None if options.no_registry else os.environ,
        without="--no-registry",
        say=_dimly(console),
    )
    if options.json:
        print(json.dumps(as_json(choice, done.description, folder=done.folder, version=done.model_uri), indent=2))
    else:
        _show_result(done.description, folder=done.folder, version=done.model_uri, console=console)
        command = predict_command(done.folder, samples_folder(known.home, study.name))
        say_command(console, f"  {'next':<{LABEL_WIDTH - 2}}{command}")
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
    """Whether neither a budget nor a rule was typed."""
    rules = (options.best, options.smallest_within, options.knee, options.trial)
    return not options.json and budget_of(options) == Budget() and all(rule is None or rule is False for rule in rules)


def _dimly(console: Console) -> Callable[[str], None]:
    return lambda text: say(console, text, style="dim")


def _nearest(candidates: Sequence[Candidate], budget: Budget) -> str:
    """That nothing fits the budget, and what comes closest."""
    closest = nearest_to(candidates, budget)
    assert closest is not None, "there are candidates"
    figures = closest.student.scores.headline()
    if closest.latency_ms is not None and closest.file_bytes is not None:
        figures += f", {closest.latency_ms:.2f} ms here, {format_quantity(closest.file_bytes)}B"
    if len(candidates) == 1:
        return f"Trial {closest.student.number} is not within {budget}: {figures}."
    return f"None of {len(candidates)} students is within {budget}. Closest: trial {closest.student.number}: {figures}."


def _show_choice(choice: Choice, options: argparse.Namespace, console: Console) -> None:
    """The reason, then what limits it; the smallest equally good student comes with its command."""
    say(console, choice.sentence, style="bold")
    for label, sentence in choice.caveats.items():
        say_labeled(console, f"  {label}", sentence)
        if label == "similar":
            number = str(choice.smaller_as_good[0].student.number)
            command = command_line("pick", options, "--trial", number)
            say_command(console, f"{'':{LABEL_WIDTH}}→ {command}")


def _show_result(description: Description, *, folder: Path, version: str | None, console: Console) -> None:
    """What was written, and how good it is."""
    int8 = description.int8
    latency = f", {description.latency[0].median_ms:.2f} ms per image on one thread" if description.latency else ""
    say_labeled(console, "  ONNX", f"Dice {100 * description.onnx.dice:.2f} %{latency}")
    say_labeled(console, "  8-bit", f"Dice {100 * int8.dice:.2f} % ({-100 * int8.drop:+z.2f} points)")
    if not int8.within_bound:
        lost = f"{100 * int8.drop:.2f} Dice points, more than {100 * int8.bound:g}"
        say(console, f"{'':{LABEL_WIDTH}}Warning: the 8-bit model loses {lost}; use model.onnx.", style="bold red")
    if (native := description.native) is not None:
        images = f"{native.images} {description.scored_on} images at original resolution"
        say_labeled(console, "  original", f"Dice {100 * native.dice:.1f} % ± {100 * native.dice_std:.1f} on {images}")
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    say_labeled(console, "  written", f"{folder}: {files}")
    if version is not None:
        say_labeled(console, "  MLflow", f"registered as {version}")


def as_json(choice: Choice, description: Description, *, folder: Path, version: str | None) -> dict[str, object]:
    """The same for a script."""
    return {
        "trial": description.trial,
        "why": choice.sentence,
        "caution": choice.caution,
        "as_good": [comparison.student.number for comparison in choice.as_good],
        "folder": str(folder),
        "registered": version,
        "scored_on": description.scored_on,
        "scores": description.scores,
        "native": description.native.model_dump() if description.native is not None else None,
        "onnx": description.onnx.model_dump(),
        "int8": description.int8.model_dump(),
        "latency": [timing.model_dump() for timing in description.latency],
    }
