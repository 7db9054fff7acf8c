"""The live view of a study in a terminal."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdsearch.campaign.events import DriverEvent
from kdsearch.cli.progress import Progress, Running, what_is_known
from kdsearch.config.quantity import format_quantity
from kdsearch.trials.record import EpochReport, describe_job

BAR_WIDTH = 24


class LiveView:
    """Redraws the study's state while it runs; used as a context."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress()
        self._live = Live(self._render(), console=console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: DriverEvent) -> None:
        """Takes an event into the picture."""
        self.progress.handle(event, now=time.monotonic())

    def _render(self) -> RenderableType:
        return render(self.progress, now=time.monotonic())


def render(progress: Progress, *, now: float) -> RenderableType:
    """The whole picture."""
    if progress.phase != "searching":
        return Group(_teacher(progress), *_troubles(progress))
    return Group(
        _teacher(progress),
        _images(progress),
        _counts(progress, now=now),
        *_troubles(progress),
        _running(progress),
        _best(progress),
    )


def _teacher(progress: Progress) -> RenderableType:
    if progress.teacher is not None:
        line = f"teacher   {progress.teacher.headline()}"
        return Text(line if progress.phase == "searching" else f"{line}; {progress.phase} …")
    if not progress.teacher_reports:
        return Text(f"{progress.phase} …")
    table = Table.grid(padding=(0, 2))
    for job in (job for job in progress.teachers if job in progress.teacher_reports):
        failure = progress.teacher_failures.get(job, "")
        table.add_row(describe_job(job, progress.teachers), *_epochs(progress.teacher_reports[job]), failure)
    return table


def _images(progress: Progress) -> RenderableType:
    return Text("" if progress.ready is None else "\n".join(what_is_known(progress.ready)), style="dim")


def _counts(progress: Progress, *, now: float) -> RenderableType:
    counts = progress.counts
    done = counts.total() - counts["rejected"]
    left = progress.seconds_left(now=now)
    time_left = f" · about {duration(left)} left" if left else ""
    ended = (
        f"{done} of {progress.target} done, {counts['stopped']} of them stopped early, {counts['failed']} failed; "
        f"{counts['rejected']} rejected"
    )
    return Text(f"trials    {ended}{time_left}", style="bold")


def _troubles(progress: Progress) -> list[RenderableType]:
    """What is wrong at present and what becomes of it."""
    lines = []
    if progress.waiting:
        lines.append(f"waiting   {progress.waiting}; trying again, nothing is lost")
    if progress.away:
        lines.append(
            f"MLflow    does not take the record: {progress.away}; the study continues, kdsearch sync makes up for it"
        )
    if progress.requeued:
        lines.append(f"workers   {progress.requeued} lost; their work resumed with others")
    return [Text(line, style="yellow") for line in lines]


def _running(progress: Progress) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for number, running in sorted(progress.running.items()):
        table.add_row(f"#{number}", running.recipe.path, _size(running), *_epochs(running.report), running.failure)
    return table


def _size(running: Running) -> str:
    return f"{format_quantity(running.cost.params)} params"


def _epochs(report: EpochReport | None) -> tuple[RenderableType, str, str]:
    if report is None:
        return ProgressBar(total=1, completed=0, width=BAR_WIDTH), "", ""
    bar = ProgressBar(total=report.epochs, completed=report.epoch, width=BAR_WIDTH)
    return bar, f"{report.epoch}/{report.epochs}", f"Dice {100 * report.dice:.1f} %"


def _best(progress: Progress) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for name, student in progress.best_by_size():
        scores = student.scores
        table.add_row(
            "best",
            name,
            f"Dice {100 * scores.dice:.1f} %",
            f"{format_quantity(scores.params)} params",
            student.recipe.path,
        )
    return table


def duration(seconds: float) -> str:
    """``1 h 05 min``, ``12 min`` or ``40 s``."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if minutes else f"{round(seconds)} s"
