"""``kdsearch pick``: a student within a budget, as a folder to be shipped and as a version in MLflow's registry."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console

from kdsearch.cli.choosing import Choice, Gallery, as_asked_for, budget_of, candidates_of, choose, rule_of
from kdsearch.cli.command_line import command_line
from kdsearch.cli.conclusion import none_within
from kdsearch.cli.picked import as_json, say_choice, say_nearest, say_result
from kdsearch.cli.walk import walk
from kdsearch.cli.writing import writing
from kdsearch.config.load import load_study, with_folders
from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError
from kdsearch.export.description import Description
from kdsearch.export.files import ONNX
from kdsearch.export.folder import Form, ship_student
from kdsearch.export.runtime import example_feed, open_session
from kdsearch.export.shipped import find_shipped
from kdsearch.files.home import home_folder
from kdsearch.front.choice import Budget
from kdsearch.front.members import front_of, is_within
from kdsearch.search.pictures import Pictures
from kdsearch.search.preparation import open_materials
from kdsearch.search.store import StudyStore, open_store
from kdsearch.tracking.location import choose_tracking
from kdsearch.trials.record import students_of

UNFINISHED = (
    "The study has not all the trials that its file asks for: others may be better. While they are trained, what is "
    "timed beside them takes too long."
)
NOTHING_WITHIN = 1
INTERRUPTED = 130
RUNTIME = ("numpy", "onnx", "onnxruntime")
"""What a program needs that loads the model from the registry."""


def run(options: argparse.Namespace) -> int:
    """Writes the student's folder and registers it; where nothing is within the budget, says so and returns 1."""
    study = with_folders(load_study(options.study), options.data)
    store = open_store(study, home_folder(os.environ), create=False)
    gallery = _open_gallery(options, study, store)
    console = Console(stderr=options.json, soft_wrap=True, highlight=False)
    if not store.complete():
        console.print(UNFINISHED, style="yellow")
    number = options.trial
    if _asks_nothing(options) and console.is_terminal and sys.stdin.isatty():
        members = front_of(gallery.students, study.search.objectives, study.search.limits)
        number = walk(members, study=study, home=gallery.home, console=console)
        if number is None:
            return INTERRUPTED
    choice = _choose(gallery, options, number=number, console=console)
    if choice is None:
        return NOTHING_WITHIN
    say_choice(choice, console)
    if not options.no_registry:
        _require_tracking(study)
    folder = options.out or Path("picked") / f"{study.name}-{choice.candidate.student.number}"
    description = _ship(gallery, choice, options, folder=folder, console=console)
    version = None if options.no_registry else _register(folder, description, study=study, study_id=store.id)
    if options.json:
        print(json.dumps(as_json(choice, description, folder=folder, version=version), indent=2))
    else:
        say_result(description, folder=folder, version=version, console=console)
    return 0


def _open_gallery(options: argparse.Namespace, study: StudyConfig, store: StudyStore) -> Gallery:
    finished = students_of(store.records())
    if not finished:
        command = command_line("run", options.study, data=options.data)
        raise KdsearchError(f"study {study.name} has no finished student yet; go on with {command}")
    students = tuple(student for student in finished if is_within(student, study.search.limits))
    if not students:
        raise KdsearchError(none_within(finished, study))
    home = home_folder(os.environ)
    materials = open_materials(study, home, data=store.data())
    pictures = Pictures(study, materials, home)
    return Gallery(students=students, study=study, materials=materials, pictures=pictures, home=home)


def _asks_nothing(options: argparse.Namespace) -> bool:
    """Whether neither budget nor rule was typed."""
    rules = (options.best, options.smallest_within, options.knee, options.trial)
    return not options.json and budget_of(options) == Budget() and all(rule is None or rule is False for rule in rules)


def _choose(gallery: Gallery, options: argparse.Namespace, *, number: int | None, console: Console) -> Choice | None:
    """The choice; None, and said so, where nothing is within the budget."""
    budget = budget_of(options)
    wanted = gallery.students if number is None else (gallery.find(number),)
    candidates = candidates_of(gallery, wanted, budget=budget, say=lambda text: console.print(text, style="dim"))
    choice = choose(gallery, candidates, budget=budget, rule=rule_of(options))
    if choice is None:
        say_nearest(candidates, budget, among=len(wanted), console=console)
        return None
    return choice if number is None else as_asked_for(gallery, choice.candidate)


def _ship(
    gallery: Gallery, choice: Choice, options: argparse.Namespace, *, folder: Path, console: Console
) -> Description:
    """Writes the folder, or finds it as the same command left it."""
    student = choice.candidate.student
    weights = gallery.weights_of(student)
    form = Form(preprocessing=options.with_preprocessing, int8_bound=options.int8_bound)
    found = find_shipped(folder, student, weights=weights, form=form)
    if found is not None:
        console.print(f"{folder} holds this student already", style="dim")
        return found
    console.print("exporting, checking against torch, quantising, timing …", style="dim")
    overlays = gallery.pictures.sheet(student)
    with writing(folder):
        return ship_student(
            student,
            gallery.study,
            gallery.materials,
            weights=weights,
            overlays=overlays,
            form=form,
            chosen=f"{choice.sentence} {choice.caution}".strip(),
            folder=folder,
        )


def _require_tracking(study: StudyConfig) -> None:
    """Before minutes of work, not after."""
    try:
        choose_tracking(study.tracking_uri, os.environ).require()
    except KdsearchError as error:
        raise KdsearchError(f"{error}; --no-registry does without") from error


def _register(folder: Path, description: Description, *, study: StudyConfig, study_id: str) -> str:
    from kdsearch.tracking.registry import Registration, register_student  # takes seconds to import

    model = folder / ONNX
    registration = Registration(
        folder=folder,
        study=study.name,
        study_id=study_id,
        trial=description.trial,
        scores=description.scores,
        digest=description.files[model.name],
        packages={name: description.made_with[name] for name in RUNTIME},
        example=example_feed(open_session(model)),
    )
    try:
        return register_student(registration, choose_tracking(study.tracking_uri, os.environ))
    except KdsearchError as error:
        raise KdsearchError(f"{error}. {folder} is complete; the same command registers it") from error
