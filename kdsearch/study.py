"""A study in Python: what ``kdsearch`` does on the command line, for scripts and notebooks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kdsearch.config.load import load_study, read_study, with_confirm, with_folders, with_search
from kdsearch.config.quantity import parse_quantity
from kdsearch.config.study import StudyConfig
from kdsearch.environment import set_environment
from kdsearch.errors import KdsearchError, StudyFileError, writing
from kdsearch.files.home import home_folder

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from kdsearch.campaign.events import DriverEvent
    from kdsearch.confirm.driver import ConfirmEvent
    from kdsearch.export.loading import Runtime, Student
    from kdsearch.statistics.confirmation import Confirmation


E = TypeVar("E", bound="DriverEvent | ConfirmEvent")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """A student that was picked."""

    folder: Path
    trial: int
    reason: str
    """Why it was chosen."""
    warning: str
    """What limits the choice, such as students that are statistically indistinguishable from it."""
    model_uri: str | None
    """Its version in MLflow's registry, such as ``models:/STUDY/3``; None if it was not registered."""

    def load(self, *, runtime: Runtime = "onnx") -> Student:
        """The student as a function from images to masks."""
        from kdsearch.export.loading import load_student

        return load_student(self.folder, runtime=runtime)


class Study:
    """One study, from its file or from a dict; ``optuna.Study`` is another class.

    In a script, call ``run`` under ``if __name__ == "__main__":``, because worker processes import the script.
    """

    def __init__(
        self,
        file: str | Path | Mapping[str, object],
        *,
        data: str | Sequence[str] = (),
        home: str | Path | None = None,
    ) -> None:
        """``data`` replaces the folders of the file's sources, ``FOLDER`` or ``NAME=FOLDER``, as ``--data`` does.

        ``home`` is where the study's files are kept; default: ``KDSEARCH_HOME``, else ``.kdsearch``. Raises
        StudyFileError if the file is not a study.
        """
        source = file if isinstance(file, Mapping) else Path(file)
        self._refused: StudyFileError | None = None
        try:
            config = load_study(source)
        except StudyFileError as error:
            config, self._refused = read_study(source), error
        self._config = with_folders(config, [data] if isinstance(data, str) else list(data))
        self._home = Path(home) if home is not None else home_folder(os.environ)

    @classmethod
    def from_dict(
        cls, settings: Mapping[str, object], *, data: str | Sequence[str] = (), home: str | Path | None = None
    ) -> Study:
        """The study whose file would hold these settings, such as ``{"name": "mine", "search": {"trials": 20}}``.

        ``data`` and ``home`` are as for a file. Raises StudyFileError if the settings are not those of a study.
        """
        return cls(settings, data=data, home=home)

    def __repr__(self) -> str:
        return f"<Study {self._config.name}>"

    @property
    def config(self) -> StudyConfig:
        """What the file says, defaults filled in."""
        return self._config

    def _trainable(self) -> StudyConfig:
        """The study; raises StudyFileError if a rule of training, which reading does not apply, refuses it."""
        if self._refused is not None:
            raise self._refused
        return self._config

    def run(
        self,
        *,
        progress: bool = False,
        on_event: Callable[[DriverEvent], None] | None = None,
        trials: int | None = None,
        workers: int | None = None,
    ) -> Study:
        """Runs the study to its end, or resumes it; returns the study.

        ``progress`` shows a bar, in a terminal or a notebook. ``on_event`` is called with each event of
        ``kdsearch.campaign.events``. An interrupt stops the study so that the next call resumes it. ``trials`` and
        ``workers`` replace what the file says. Raises KdsearchError if the study cannot start or continue.
        """
        from kdsearch.workflow.run import run

        set_environment()
        study = with_search(self._trainable(), trials=trials, workers=workers)
        for one in run(study, home=self._home, environment=os.environ):
            _watched(one.events, on_event, progress=progress)
        return self

    def front(self) -> pd.DataFrame:
        """The students that no other beats, smallest first: scores and settings by trial.

        Of a study with repeats, their averages, as the command shows them.
        """
        from kdsearch.workflow.results import front, students_table

        found = front(self._config, self._home)
        return students_table(found.members, found.standings)

    def trials(self) -> pd.DataFrame:
        """Every trial: outcome, scores and settings by trial; by repeat and trial if the study has repeats.

        Repeats that were never run are left out.
        """
        from kdsearch.workflow.results import all_trials_table

        return all_trials_table(self._config, self._home)

    def confirm(
        self,
        *,
        progress: bool = False,
        on_event: Callable[[DriverEvent | ConfirmEvent], None] | None = None,
        repetitions: int | None = None,
        workers: int | None = None,
        new_plan: bool = False,
    ) -> Confirmation:
        """Trains the likely front again over folds, with undistilled twins, and returns the results.

        ``progress`` shows a bar. ``on_event`` is called with each event. An interrupt stops it so that the next call
        resumes. ``repetitions`` and ``workers`` replace what the file says. ``new_plan`` fixes another plan and keeps
        the first. Raises KdsearchError if it cannot start or continue.
        """
        from kdsearch.workflow.confirm import confirm

        set_environment()
        study = with_confirm(with_search(self._trainable(), trials=None, workers=workers), repetitions=repetitions)
        return _watched(
            confirm(study, home=self._home, environment=os.environ, anew=new_plan), on_event, progress=progress
        )

    def test(
        self,
        trial: int,
        *,
        progress: bool = False,
        on_event: Callable[[DriverEvent | ConfirmEvent], None] | None = None,
        workers: int | None = None,
        again: bool = False,
    ) -> Confirmation:
        """Scores the locked test images once, by the trial's recipe trained on all others, its twin and the teacher.

        Shows progress and resumes as ``confirm`` does. Raises KdsearchError if the images were opened before, unless
        ``again``.
        """
        from kdsearch.workflow.confirm import score_locked

        set_environment()
        study = with_search(self._trainable(), trials=None, workers=workers)
        events = score_locked(study, trial=trial, home=self._home, environment=os.environ, again=again)
        return _watched(events, on_event, progress=progress)

    def confirmation(self) -> Confirmation | None:
        """What the last finished confirmation said; None where there is none."""
        from kdsearch.workflow.confirm import confirmation

        return confirmation(self._config, self._home)

    def chart(self) -> go.Figure:
        """Dice against parameters of all students, the front's outlined; a notebook shows it."""
        from kdsearch.report.charts import front_figure
        from kdsearch.workflow.results import front

        found = front(self._config, self._home)
        return front_figure(
            self._config,
            students=found.students,
            front=found.members,
            teacher=found.teacher,
            standings=found.standings,
        )

    def pick(  # noqa: PLR0913 - a keyword for each of the command's options
        self,
        *,
        params: int | str | None = None,
        macs: int | str | None = None,
        latency_ms: float | None = None,
        file_bytes: int | str | None = None,
        min_dice: float | None = None,
        min_specificity: float | None = None,
        smallest_within: float | None = None,
        knee: bool = False,
        trial: int | None = None,
        refit: bool = False,
        out: str | Path | None = None,
        with_preprocessing: bool = False,
        int8_bound: float = 0.01,
        latency: bool = True,
        registry: bool = True,
    ) -> Picked:
        """The best student within the budget, as a folder and, with ``registry``, as a version in MLflow.

        Quantities may be written ``"50k"``. ``refit`` takes the weights that ``test`` trained on all but the locked
        images. ``latency=False`` skips measuring the latency on this machine. Raises KdsearchError where none is within
        the budget, naming the nearest.
        """
        from kdsearch.export.folder import Form
        from kdsearch.front.rules import Budget
        from kdsearch.workflow.pick import deliver, open_candidates, pick, require_choice, rule_named, with_refit

        _require_one_way(by_rule=(smallest_within is not None, knee), by_trial=trial is not None, refit=refit)
        _require_fraction(int8_bound=int8_bound)
        budget = Budget(
            params=_quantity(params),
            macs=_quantity(macs),
            latency_ms=latency_ms,
            file_bytes=_quantity(file_bytes),
            min_dice=min_dice,
            min_specificity=min_specificity,
        )
        known = open_candidates(self._config, self._home, resume="run()")
        known, trial = with_refit(known, trial=trial, refit=refit)
        rule = rule_named(smallest_within=smallest_within, knee=knee)
        choice = require_choice(pick(known, budget=budget, rule=rule, trial=trial, say=_quiet), budget)
        done = deliver(
            known,
            choice,
            form=Form(preprocessing=with_preprocessing, int8_bound=int8_bound, latency=latency),
            out=None if out is None else Path(out),
            registry=os.environ if registry else None,
            without="registry=False",
            say=_quiet,
        )
        return Picked(
            folder=done.folder,
            trial=choice.candidate.student.number,
            reason=choice.sentence,
            warning=choice.caution,
            model_uri=done.model_uri,
        )

    def report(self, out: str | Path | None = None) -> Path:
        """Writes the study as one HTML file that opens with no network; ``STUDY-report.html`` unless given."""
        from kdsearch.workflow.results import report

        page = report(self._config, self._home, resume="run()")
        place = Path(out) if out is not None else Path(f"{self._config.name}-report.html")
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(page, encoding="utf-8")
        return place

    def sync(self) -> None:
        """Brings MLflow level with the study; raises KdsearchError where it was never run, or MLflow is away."""
        from kdsearch.workflow.run import sync

        for _ in sync(self._config, home=self._home, environment=os.environ):
            pass


def _watched(events: Generator[E, None, R], on_event: Callable[[E], None] | None, *, progress: bool) -> R:
    """Consumes all events and returns the final result."""
    from kdsearch.workflow.progress import progress_bar

    with contextlib.closing(events), progress_bar() if progress else contextlib.nullcontext() as show:
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                found: R = stop.value
                return found
            for handle in (show, on_event):
                if handle is not None:
                    handle(event)


def _require_one_way(*, by_rule: Sequence[bool], by_trial: bool, refit: bool) -> None:
    """Raises KdsearchError where a student is asked for in two ways."""
    if refit and any(by_rule):
        raise KdsearchError("pick: refit ships the student that was tested, by no rule; drop the rule, or refit")
    if sum((*by_rule, by_trial)) > 1:
        raise KdsearchError("pick: smallest_within, knee and trial exclude each other; name one")


def _require_fraction(*, int8_bound: float) -> None:
    if not 0 <= int8_bound <= 1:
        raise KdsearchError(f"pick: int8_bound must lie between 0 and 1, got {int8_bound}")


def _quantity(value: int | str | None) -> int | None:
    return parse_quantity(value) if isinstance(value, str) else value


def _quiet(_text: str) -> None:
    """Says nothing."""
