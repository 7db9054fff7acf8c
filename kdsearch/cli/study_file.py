"""``kdsearch check``, ``data``, ``studies`` and ``schema``: study files and their images."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path

from rich.syntax import Syntax

from kdsearch.cli.terminal import say, terminal
from kdsearch.config.load import dump_study, load_study, shipped_studies, with_folders
from kdsearch.config.networks import StudentSpec
from kdsearch.config.quantity import format_quantity
from kdsearch.config.reference import reference
from kdsearch.config.space import dimensions, extreme_students, size_of
from kdsearch.config.study import StudyConfig
from kdsearch.data.audit import colored_images
from kdsearch.data.source import check_tables
from kdsearch.errors import StudyFileError, nearest, writing
from kdsearch.files.atomic import atomic_write
from kdsearch.files.home import home_folder
from kdsearch.models.costs import cost_of, require_comparable, require_possible_limits
from kdsearch.report.words import layers_words, student_words
from kdsearch.statistics.power import least_difference
from kdsearch.trials.scores import Cost
from kdsearch.workflow.places import require_forms, require_places

IMAGES = (50, 100, 200, 500)
"""Numbers of validation images for which the smallest reliable difference is printed."""
SCHEMA = "study.schema.json"
FIRST = 4
"""Images of a finding that are named in the terminal."""


def run_check(options: argparse.Namespace) -> int:
    """Validates the study file and prints it with its defaults, its space, and its smallest and largest student."""
    study = load_study(options.study, options.settings)
    require_comparable(study)
    require_possible_limits(study)
    unread = check_tables(study.data)
    (require_places if options.places else require_forms)(study, home_folder(os.environ), os.environ)
    console = terminal()
    console.print(Syntax(dump_study(study), "yaml", background_color="default"))
    say(console, f"{options.study} is valid.", style="bold")
    if options.places:
        say(console, "The Optuna database, MLflow and the checkpoint folder can be used.")
    colored, seen = colored_images(study.data) if study.data.channels == 1 else (0, 0)
    if colored:
        share = f"{colored / seen:.0%} of {seen} images that were opened are colored, and are converted to gray"
        say(console, f"colors    {share}; data.channels: 3 keeps their colors", style="yellow")
    size = size_of(study)
    say(console, f"searched  {', '.join(dimensions(study)) or 'nothing'}")
    say(console, f"space     {f'{size:,} different students' if size is not None else 'continuous'}")
    for line in (*_extremes(study), _noise(), *unread):
        say(console, line)
    return 0


def _extremes(study: StudyConfig) -> list[str]:
    costed = [(cost_of(spec, study.data.task), spec) for spec in extreme_students(study)]
    smallest = min(costed, key=lambda pair: (pair[0].params, pair[0].macs))
    largest = max(costed, key=lambda pair: (pair[0].params, pair[0].macs))
    return [f"smallest  {_costed(*smallest)}", f"largest   {_costed(*largest)}"]


def _costed(cost: Cost, spec: StudentSpec) -> str:
    figures = f"{format_quantity(cost.params)} params, {format_quantity(cost.macs)} MACs per image"
    return f"{figures}: {student_words(spec)}, {layers_words(spec)}"


def _noise() -> str:
    points = ", ".join(f"{100 * least_difference(count):.1f}" for count in IMAGES)
    counts = ", ".join(map(str, IMAGES))
    return (
        f"noise     with {counts} lesion images for validation, differences below {points} Dice points "
        "(respectively) are within noise"
    )


def run_studies(options: argparse.Namespace) -> int:
    """Lists the studies that come with kdsearch, or copies one; never overwrites a file."""
    shipped = shipped_studies()
    if options.copy is None:
        for name, file in shipped.items():
            print(f"{name:<16}{_purpose(file)}")
        return 0
    if options.copy not in shipped:
        remedy = nearest(options.copy, shipped) or f"; write one of {', '.join(shipped)}"
        raise StudyFileError(f"--copy {options.copy}: no such study{remedy}")
    file = options.out or Path("studies", f"{options.copy}.yaml")
    if file.exists():
        raise StudyFileError(f"{file}: exists already; name another file with --out")
    file.parent.mkdir(parents=True, exist_ok=True)
    copy_schema(file)
    atomic_write(str(file), shipped[options.copy].read_bytes())
    print(f"Wrote {file}. Run it with: {shlex.join(['kdsearch', 'run', str(file)])}")
    return 0


def copy_schema(file: Path) -> None:
    """Puts the JSON schema next to a study file whose first line names it, for editors; keeps one that is there."""
    schema = file.with_name(SCHEMA)
    if not schema.exists():
        atomic_write(str(schema), shipped_studies()["pareto"].with_name(SCHEMA).read_bytes())


def _purpose(file: Path) -> str:
    """The first sentence of the study file's comment."""
    lines = [line.removeprefix("# ") for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    return next((line for line in lines if not line.startswith("yaml-language-server")), "")


def run_schema(options: argparse.Namespace) -> int:
    """Prints the JSON schema of study files, or their settings as Markdown tables."""
    if options.markdown:
        print(reference())
    else:
        print(json.dumps(StudyConfig.model_json_schema(by_alias=True), indent=2, ensure_ascii=False))
    return 0


def run_data(options: argparse.Namespace) -> int:
    """Prints tables and findings about the images, and writes the page that shows them."""
    from kdsearch.data.masks import summed_up_again
    from kdsearch.report.confirmation import cells_table
    from kdsearch.workflow.data import audit, page_of

    study = with_folders(load_study(options.study, options.settings), options.data)
    found, console = audit(study, home_folder(os.environ)), terminal()
    for title, table in (("Images by source and label", found.composition), ("Splits by label", found.parts)):
        if table:
            console.print(cells_table(list(table), title=title))
    for line in found.files:
        say(console, line)
    for remark in found.passed_over:
        say(console, f"{remark}: {_first(remark.names)}")
    for line in found.cautions:
        say(console, line)
    for finding in found.findings:
        say(console, f"{len(finding.ids)} {finding.what}: {_first([' = '.join(one) for one in finding.images])}")
    for line in summed_up_again(found.skipped):
        say(console, f"left out: {line}", style="yellow")
    page = options.out or Path(f"{study.name}-data.html")
    with writing(page):
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(page_of(found), encoding="utf-8")
    say(console, f"Written to {page}")
    return 0


def _first(names: list[str] | tuple[str, ...]) -> str:
    return f"{', '.join(names[:FIRST])}{'' if len(names) <= FIRST else ' …'}"
