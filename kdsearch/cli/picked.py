"""What is shown of a picked student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kdsearch.config.quantity import format_quantity
from kdsearch.export.description import Description
from kdsearch.front.rules import Budget, Candidate, nearest_to
from kdsearch.workflow.choosing import Choice

MOST_SHOWN = 5
"""Students not distinguishable from the chosen one, the smallest."""


def say_choice(choice: Choice, console: Console) -> None:
    """Why it was chosen, and what is not distinguishable from it."""
    console.print(choice.sentence)
    if choice.caution:
        console.print(choice.caution, style="yellow")
    shown = choice.as_good[:MOST_SHOWN]
    if not shown:
        return
    count = f" ({len(shown)} smallest of {len(choice.as_good)})" if len(choice.as_good) > len(shown) else ""
    title = f"not distinguishable from it by these images and these weights{count}"
    table = Table("trial", "Dice %", "chosen minus it", "params", "MACs", "path", title=title)
    for comparison in shown:
        scores = comparison.student.scores
        table.add_row(
            str(comparison.student.number),
            f"{100 * scores.dice:.1f}",
            str(comparison.behind),
            format_quantity(scores.params),
            format_quantity(scores.macs),
            comparison.student.recipe.path,
        )
    console.print(table)


def say_nearest(candidates: Sequence[Candidate], budget: Budget, *, among: int, console: Console) -> None:
    """That nothing is within the budget, and what misses it by least."""
    closest = nearest_to(candidates, budget)
    assert closest is not None
    figures = closest.student.scores.headline()
    if closest.latency_ms is not None and closest.file_bytes is not None:
        figures += f", {closest.latency_ms:.2f} ms here, {format_quantity(closest.file_bytes)}B"
    name = f"trial {closest.student.number}"
    if among == 1:
        console.print(f"{name.capitalize()} is not within {budget}: {figures}.")
    else:
        console.print(f"No student of {among} is within {budget}. The nearest is {name}: {figures}.")


def say_result(description: Description, *, folder: Path, version: str | None, console: Console) -> None:
    """What the folder holds and how good it is."""
    int8 = description.int8
    timed = f", {description.latency[0].median_ms:.2f} ms an image on one thread" if description.latency else ""
    console.print(
        f"ONNX: Dice {100 * description.onnx.dice:.2f} %{timed}; "
        f"8 bits: Dice {100 * int8.dice:.2f} %, {-100 * int8.drop:+z.2f} points."
    )
    if description.native is not None:
        native = description.native
        console.print(
            f"At their files' size the {native.images} {description.scored_on} images give "
            f"Dice {100 * native.dice:.1f} % ± {100 * native.dice_std:.1f}."
        )
    if not int8.within_bound:
        console.print(
            f"The 8-bit file loses {100 * int8.drop:.2f} points of Dice, more than {100 * int8.bound:g}: it is "
            "marked; use model.onnx.",
            style="bold red",
        )
    console.print(f"In {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if version is not None:
        console.print(f"Registered in MLflow as {version}")
    console.print(f"next: kdsearch predict {folder} IMAGE… --out masks")


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
