"""The commands that a command suggests when it is done."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from pathlib import Path

from kdsearch.config.quantity import format_quantity
from kdsearch.tracking.location import Tracking


def command_line(verb: str, options: argparse.Namespace, *words: str) -> str:
    """``kdsearch VERB STUDY …`` for the study of ``options``, with shell quoting."""
    folders = [word for folder in options.data if verb != "ui" for word in ("--data", folder)]
    return shlex.join(["kdsearch", verb, str(options.study), *options.settings, *folders, *words])


def browse_lines(
    options: argparse.Namespace, *, tracking: Tracking | None = None, page: str | None = None
) -> list[str]:
    """How to open the study in MLflow, with the link if the view of its front is known."""
    lines = [f"browse:  {command_line('ui', options)}"]
    return [*lines, f"         {tracking.link(page)}"] if tracking is not None and page is not None else lines


def confirm_line(options: argparse.Namespace) -> str:
    """How to get honest scores."""
    return f"confirm: {command_line('confirm', options)}"


def pick_lines(options: argparse.Namespace, *, params: int, samples: Path | None = None) -> list[str]:
    """How to export a student of about so many parameters and, if there are images for it, how to try it."""
    budget = ("--params", format_quantity(round_budget(params)))
    if samples is None or not samples.is_dir():
        return [f"pick:    {command_line('pick', options, *budget)}"]
    folder = f"picked/{samples.parent.name}"
    return [
        f"pick:    {command_line('pick', options, *budget, '--out', folder)}",
        f"predict: {predict_command(folder, samples)}",
    ]


def predict_command(folder: Path | str, samples: Path) -> str:
    """How to try a picked student on the folder of samples, if there is one."""
    if not samples.is_dir():
        return f"{shlex.join(['kdsearch', 'predict', str(folder)])} IMAGE…"
    with contextlib.suppress(ValueError):
        samples = samples.absolute().relative_to(Path.cwd())
    return shlex.join(["kdsearch", "predict", str(folder), str(samples), "--out", "masks"])


def round_budget(params: int) -> int:
    """The next number of the form 1, 2 or 5 times a power of ten."""
    power = int(10 ** (len(str(params)) - 1))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= params)
