"""``kdsearch check``: what a study file says, and what it would search."""

from __future__ import annotations

import argparse
import os

from rich.syntax import Syntax

from kdsearch.cli.terminal import terminal
from kdsearch.config.load import dump_study, load_study
from kdsearch.config.networks import StudentSpec
from kdsearch.config.quantity import format_quantity
from kdsearch.config.space import dimensions, extreme_students, size_of
from kdsearch.config.study import StudyConfig
from kdsearch.data.source import check_tables
from kdsearch.files.home import home_folder
from kdsearch.models.costs import cost_of, require_comparable, require_possible_limits
from kdsearch.statistics.power import least_difference
from kdsearch.trials.scores import Cost
from kdsearch.workflow.places import require_forms, require_places

IMAGES = (50, 100, 200, 500)


def run(options: argparse.Namespace) -> int:
    """Validates the study file and prints the resolved study, its space, and its smallest and largest student."""
    study = load_study(options.study)
    require_comparable(study)
    require_possible_limits(study)
    unread = check_tables(study.data)
    (require_places if options.places else require_forms)(study, home_folder(os.environ), os.environ)
    console = terminal()
    console.print(Syntax(dump_study(study), "yaml", background_color="default"))
    console.print(f"{options.study} is valid.", style="bold", highlight=False)
    if options.places:
        console.print("Storage, MLflow and the place for checkpoints can be used.", highlight=False)
    searched = dimensions(study)
    size = size_of(study)
    space = f"{size:,} different recipes" if size is not None else "continuous"
    console.print(f"space: {space}; searched: {', '.join(searched) or 'nothing'}", soft_wrap=True)
    for text in _students(study):
        console.print(text, soft_wrap=True)
    console.print(_what_images_show(), soft_wrap=True)
    for line in unread:
        console.print(line, soft_wrap=True, markup=False)
    return 0


def _what_images_show() -> str:
    """How far apart two students must be to be told apart, by how many images there are."""
    points = ", ".join(f"{100 * least_difference(count):.1f}" for count in IMAGES)
    counts = ", ".join(map(str, IMAGES))
    return (
        f"validation: with {counts} images with a lesion, two students less than {points} points of Dice apart are "
        "likely to pass for equal"
    )


def _students(study: StudyConfig) -> list[str]:
    size = study.data.size
    costed = [(cost_of(spec, size=size), spec) for spec in extreme_students(study)]
    smallest = min(costed, key=lambda pair: (pair[0].params, pair[0].macs))
    largest = max(costed, key=lambda pair: (pair[0].params, pair[0].macs))
    return [_line("smallest student", *smallest, size=size), _line("largest student", *largest, size=size)]


def _line(name: str, cost: Cost, spec: StudentSpec, *, size: int) -> str:
    recipe = ", ".join(f"{key} {value}" for key, value in spec.model_dump().items())
    figures = f"{format_quantity(cost.params)} params, {format_quantity(cost.macs)} MACs"
    return f"{name}: {figures} for one {size}×{size} image ({recipe})"
