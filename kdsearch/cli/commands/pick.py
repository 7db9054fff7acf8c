"""``kdsearch pick``: a student within a budget, as a folder to be shipped and as a version in MLflow's registry."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kdsearch.cli.choosing import Choice, as_asked_for, budget_of, candidates_of, choose, find_trial, rule_of
from kdsearch.cli.command_line import command_line
from kdsearch.cli.walk import walk
from kdsearch.cli.writing import writing
from kdsearch.config.home import home_folder, weights_path
from kdsearch.config.load import load_study, with_folders
from kdsearch.config.quantity import format_quantity
from kdsearch.config.study import StudyConfig
from kdsearch.distill.record import Student, students_of
from kdsearch.errors import KdsearchError
from kdsearch.export.description import Description
from kdsearch.export.folder import Form, Workbench, ship_student
from kdsearch.export.runtime import example_feed, open_session
from kdsearch.front.choice import Budget, nearest_to
from kdsearch.front.members import front_of
from kdsearch.search.pictures import Pictures
from kdsearch.search.store import open_store
from kdsearch.search.workbench import open_workbench
from kdsearch.tracking.location import choose_tracking

NOTHING_WITHIN = 1
INTERRUPTED = 130
RUNTIME = ("numpy", "onnx", "onnxruntime")
"""What a program needs that loads the model from the registry."""


def run(options: argparse.Namespace) -> int:
    """Writes the student's folder and registers it; where nothing is within the budget, says so and returns 1."""
    study = with_folders(load_study(options.study), options.data)
    home = home_folder(os.environ)
    store = open_store(study, home, create=False)
    students = students_of(store.records())
    if not students:
        command = command_line("run", options.study, data=options.data)
        raise KdsearchError(f"study {study.name} has no finished student yet; go on with {command}")
    console = Console(stderr=options.json, soft_wrap=True, highlight=False)
    bench = open_workbench(study, home, data=store.data())
    pictures = Pictures(bench, home)
    number = options.trial
    if _asks_nothing(options) and console.is_terminal and sys.stdin.isatty():
        number = walk(front_of(students, study.search.objectives), study, home, console=console)
        if number is None:
            return INTERRUPTED
    choice = _choose(options, students, bench, home, pictures=pictures, number=number, console=console)
    if choice is None:
        return NOTHING_WITHIN
    folder = options.out or Path("picked") / f"{study.name}-{choice.candidate.student.number}"
    _say_choice(choice, console)
    console.print("exporting, checking against torch, quantising, timing …", style="dim")
    if not options.no_registry:
        choose_tracking(study.tracking_uri, os.environ).require()
    description = _ship(options, choice.candidate.student, students, bench, home, pictures=pictures, folder=folder)
    version = None if options.no_registry else _register(study, store.id, folder, description)
    if options.json:
        print(json.dumps(_as_json(choice, description, folder, version), indent=2))
    else:
        _say_result(description, folder, version, console)
    return 0


def _asks_nothing(options: argparse.Namespace) -> bool:
    """Whether neither budget nor rule was typed."""
    rules = (options.best, options.smallest_within, options.knee, options.trial)
    return not options.json and budget_of(options) == Budget() and all(rule is None or rule is False for rule in rules)


def _choose(
    options: argparse.Namespace,
    students: tuple[Student, ...],
    bench: Workbench,
    home: Path,
    *,
    pictures: Pictures,
    number: int | None,
    console: Console,
) -> Choice | None:
    budget = budget_of(options)
    wanted = students if number is None else (find_trial(number, students),)
    candidates = candidates_of(wanted, budget, bench, home, say=lambda text: console.print(text, style="dim"))
    choice = choose(candidates, budget, rule_of(options), pictures=pictures)
    if choice is not None and number is not None:
        choice = as_asked_for(choice, students, pictures)
    if choice is None:
        closest = nearest_to(candidates, budget)
        assert closest is not None
        figures = closest.student.scores.headline()
        if closest.latency_ms is not None and closest.file_bytes is not None:
            figures += f", {closest.latency_ms:.2f} ms, {format_quantity(closest.file_bytes)}B"
        name = f"trial {closest.student.number}"
        console.print(f"No student of {len(wanted)} is within {budget}. The nearest is {name}: {figures}.")
    return choice


def _ship(
    options: argparse.Namespace,
    student: Student,
    students: tuple[Student, ...],
    bench: Workbench,
    home: Path,
    *,
    pictures: Pictures,
    folder: Path,
) -> Description:
    with writing(folder):
        return ship_student(
            student,
            bench,
            weights=weights_path(home, bench.study.name, student.number),
            overlays=pictures.sheet(student, students),
            form=Form(preprocessing=options.with_preprocessing, int8_bound=options.int8_bound),
            folder=folder,
        )


def _register(study: StudyConfig, study_id: str, folder: Path, description: Description) -> str:
    from kdsearch.tracking.registry import Registration, register_student  # takes seconds to import

    model = folder / "model.onnx"
    session = open_session(model)
    return register_student(
        Registration(
            folder=folder,
            study=study.name,
            study_id=study_id,
            trial=description.trial,
            scores=description.scores,
            digest=description.files[model.name],
            packages={name: description.made_with[name] for name in RUNTIME},
            example=example_feed(session),
        ),
        choose_tracking(study.tracking_uri, os.environ),
    )


def _say_choice(choice: Choice, console: Console) -> None:
    console.print(choice.sentence)
    if choice.caution:
        console.print(choice.caution, style="yellow")
    near = [rival for rival in choice.rivals if rival.behind.within_noise]
    if not near:
        return
    table = Table(
        "trial", "Dice %", "behind by", "params", "MACs", "path", title="as good, as far as these images tell"
    )
    for rival in near:
        student = rival.candidate.student
        table.add_row(
            str(student.number),
            f"{100 * student.scores.dice:.1f}",
            f"{100 * rival.behind.mean:+.1f} ± {100 * rival.behind.half_width:.1f}",
            format_quantity(student.scores.params),
            format_quantity(student.scores.macs),
            student.recipe.path,
        )
    console.print(table)


def _say_result(description: Description, folder: Path, version: str | None, console: Console) -> None:
    int8 = description.int8
    fastest = description.latency[0]
    console.print(
        f"ONNX: Dice {100 * description.onnx.dice:.2f} %, {fastest.median_ms:.2f} ms an image on one thread; "
        f"8 bits: Dice {100 * int8.dice:.2f} %, {-100 * int8.drop:+.2f} points."
    )
    if not int8.within_bound:
        console.print(
            f"The 8-bit file loses {100 * int8.drop:.2f} points of Dice, more than {100 * int8.bound:g}: it is "
            "marked; use model.onnx.",
            style="bold red",
        )
    console.print(f"Written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if version is not None:
        console.print(f"Registered in MLflow as {version}")
    console.print(f"next: kdsearch predict {folder} IMAGE… --out masks")


def _as_json(choice: Choice, description: Description, folder: Path, version: str | None) -> dict[str, object]:
    return {
        "trial": description.trial,
        "why": choice.sentence,
        "caution": choice.caution,
        "as_good": [rival.candidate.student.number for rival in choice.rivals if rival.behind.within_noise],
        "folder": str(folder),
        "registered": version,
        "scores": description.scores,
        "onnx": description.onnx.model_dump(),
        "int8": description.int8.model_dump(),
        "latency": [timing.model_dump() for timing in description.latency],
    }
