"""``kdsearch pick``: the best student within a budget, as a folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console

from kdsearch.cli.writing import writing
from kdsearch.config.home import home_folder, weights_path
from kdsearch.config.load import load_study
from kdsearch.distill.record import Student, students_of
from kdsearch.errors import KdsearchError
from kdsearch.export.folder import export_student
from kdsearch.front.choice import Budget, best_within, nearest_to
from kdsearch.search.store import open_store

NOTHING_WITHIN = 1


def run(options: argparse.Namespace) -> int:
    """Writes the student's folder; where nothing is within the budget, names the nearest and returns 1."""
    study = load_study(options.study)
    home = home_folder(os.environ)
    students = students_of(open_store(study, home, create=False).records())
    budget = Budget(params=options.params, macs=options.macs, min_dice=options.min_dice)
    nearest = nearest_to(students, budget)
    if nearest is None:
        raise KdsearchError(f"study {study.name} has no finished student yet; go on with kdsearch run {options.study}")
    console = Console(soft_wrap=True)
    student = best_within(students, budget)
    if student is None:
        console.print(f"No student of {len(students)} is within {budget}. The nearest is {_describe(nearest)}.")
        return NOTHING_WITHIN
    folder = options.out or Path("picked") / f"{study.name}-{student.number}"
    with writing(folder):
        export_student(student, study, weights_path(home, study.name, student.number), folder)
    console.print(f"Best of {len(students)} students within {budget}: {_describe(student)}.")
    console.print(f"Written to {folder}: model.safetensors, student.yaml")
    return 0


def _describe(student: Student) -> str:
    scores = student.scores
    figures = f"validation Dice {100 * scores.dice:.1f} %, {scores.params:,} params, {scores.macs:,} MACs"
    return f"trial {student.number} ({student.recipe.path}): {figures}"
