"""``kdsearch predict``: masks of images, at their own size."""

from __future__ import annotations

import argparse

from rich.progress import track

from kdsearch.cli.terminal import terminal
from kdsearch.errors import DataError
from kdsearch.export.loading import load_student
from kdsearch.workflow.predict import find_images, predict

SOME_BAD = 1


def run(options: argparse.Namespace) -> int:
    """Writes a mask and an overlay for each image; returns 1 where some could not be read."""
    student = load_student(options.folder, runtime=options.runtime)
    found = find_images(options.images, options.out)
    console, images = terminal(stderr=True, soft_wrap=True, highlight=False), found.images
    for line in found.passed_over:
        console.print(line, style="yellow")
    bad: list[str] = []
    for wanted in track(images, description="predicting", console=console, disable=not console.is_terminal):
        try:
            predict(student, wanted, probabilities=options.probabilities)
        except DataError as error:
            bad.append(f"{wanted.image}: {error}")
    for line in bad:
        console.print(f"skipped {line}", style="red")
    done = len(images) - len(bad)
    print(f"{done} of {len(images)} images done{f', written to {options.out}' if done else ''}")
    return SOME_BAD if bad else 0
