"""The Python API: everything that the command line does with a study, for scripts and notebooks."""

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
    from kdsearch.export.folder import Form
    from kdsearch.export.loading import Runtime, Student
    from kdsearch.front.rules import Budget, Rule
    from kdsearch.statistics.confirmation import Confirmation


E = TypeVar("E", bound="DriverEvent | ConfirmEvent")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """A student that ``Study.pick`` wrote to a folder."""

    folder: Path
    trial: int
    reason: str
    """Why this student was chosen."""
    warning: str
    """What limits the choice, such as optimistic scores and statistically indistinguishable students."""
    model_uri: str | None
    """Its version in MLflow's model registry, such as ``models:/STUDY/3``; None if it was not registered."""

    def load(self, *, runtime: Runtime = "onnx") -> Student:
        """Loads the student as a function from images to masks, like ``kdsearch.load_student``."""
        from kdsearch.export.loading import load_student

        return load_student(self.folder, runtime=runtime)


class Study:
    """A study of kdsearch, which is unrelated to the class ``optuna.Study``.

    In a script, call ``run``, ``confirm`` and ``test`` under ``if __name__ == "__main__":``, because worker processes
    import the script.
    """

    def __init__(
        self,
        file: str | Path | Mapping[str, object],
        *,
        data: str | Sequence[str] = (),
        home: str | Path | None = None,
    ) -> None:
        """Reads a study file, or its settings as a dict.

        ``data`` replaces the file's image folders: ``FOLDER`` or ``NAME=FOLDER``, as for ``--data``. ``home`` is the
        folder for the study's files (default: ``KDSEARCH_HOME``, or else ``.kdsearch``). Raises StudyFileError if the
        file is not a valid study.
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
        """Creates a study from settings such as ``{"name": "mine", "search": {"trials": 20}}`` instead of a file.

        ``data`` and ``home`` are the same as for a file. Raises StudyFileError if the settings are invalid.
        """
        return cls(settings, data=data, home=home)

    def __repr__(self) -> str:
        return f"<Study {self._config.name}>"

    @property
    def config(self) -> StudyConfig:
        """The study's settings, including defaults."""
        return self._config

    def _trainable(self) -> StudyConfig:
        """The settings; raises StudyFileError if the study can be read but not trained."""
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
        """Runs the study until all trials are done and returns the study itself. Resumes a study that was stopped.

        ``progress`` shows a progress bar, in a terminal or a notebook. ``on_event`` is called with each event of
        ``kdsearch.campaign.events``. ``trials`` and ``workers`` replace the values in the file. You can interrupt the
        call at any time; the next call resumes. Raises KdsearchError if the study cannot start or continue.
        """
        from kdsearch.workflow.run import run

        set_environment()
        study = with_search(self._trainable(), trials=trials, workers=workers)
        for one in run(study, home=self._home, environment=os.environ):
            _watched(one.events, on_event, progress=progress)
        return self

    def front(self) -> pd.DataFrame:
        """Returns the students on the Pareto front, smallest first: one row per trial with its scores and settings.

        For a study with repeats, returns averages, as the command does. Raises KdsearchError if the study was never
        run.
        """
        from kdsearch.workflow.results import front, students_table

        found = front(self._config, self._home)
        return students_table(found.members, found.standings)

    def trials(self) -> pd.DataFrame:
        """Returns all trials: one row per trial with its outcome, scores and settings.

        For a study with repeats, the index is repeat and trial, and repeats that were never run are left out. Raises
        KdsearchError if the study was never run.
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
        """Cross-validates the students that are likely on the front, each next to an undistilled twin.

        The plan is stored before any training starts. Returns unbiased scores and the effect of distillation.
        ``progress`` shows a progress bar; ``on_event`` is called with each event. ``repetitions`` and ``workers``
        replace the values in the file. ``new_plan`` stores another plan in addition to the existing ones. You can
        interrupt the call at any time; the next call resumes. Raises KdsearchError if the confirmation cannot start or
        continue.
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
        """Trains the trial's settings on all other images and scores the result on the locked test images.

        Also scores the undistilled twin and the teacher. Use the test images only once, after you have chosen the
        trial. Shows progress and resumes like ``confirm``. Raises KdsearchError if the test images were used before,
        except with ``again``; reports show how often they were used.
        """
        from kdsearch.workflow.confirm import score_locked

        set_environment()
        study = with_search(self._trainable(), trials=None, workers=workers)
        events = score_locked(study, trial=trial, home=self._home, environment=os.environ, again=again)
        return _watched(events, on_event, progress=progress)

    def confirmation(self) -> Confirmation | None:
        """Returns the result of the last finished confirmation; None if there is none."""
        from kdsearch.workflow.confirm import confirmation

        return confirmation(self._config, self._home)

    def chart(self) -> go.Figure:
        """Returns an interactive chart of Dice against parameters, with the front outlined; notebooks display it."""
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
        """Picks the student with the best Dice within the budget, exports it to a folder and registers it in MLflow.

        The budget is ``params`` to ``min_specificity``; counts may be written like ``"50k"``. To choose differently,
        set one of ``smallest_within`` (the smallest student whose Dice, 0-1, is at most this far below the best),
        ``knee`` (the best trade-off) or ``trial``. ``refit`` exports the weights that ``test`` trained.

        ``out`` is the folder (default: ``picked/STUDY-TRIAL``). ``with_preprocessing`` adds preprocessing to the ONNX
        graph. ``int8_bound`` is the largest acceptable Dice loss, 0-1, of the 8-bit model. ``latency=False`` skips the
        latency measurement. Raises KdsearchError, which names the nearest student, if none is within the budget.
        """
        from kdsearch.export.folder import Form
        from kdsearch.front.rules import Budget
        from kdsearch.workflow.pick import rule_named

        _require_one_way(by_rule=(smallest_within is not None, knee), by_trial=trial is not None, refit=refit)
        if not 0 <= int8_bound <= 1:
            raise KdsearchError(f"pick: int8_bound must be between 0 and 1, got {int8_bound}")
        budget = Budget(
            params=_quantity(params),
            macs=_quantity(macs),
            latency_ms=latency_ms,
            file_bytes=_quantity(file_bytes),
            min_dice=min_dice,
            min_specificity=min_specificity,
        )
        rule = rule_named(smallest_within=smallest_within, knee=knee)
        form = Form(preprocessing=with_preprocessing, int8_bound=int8_bound, latency=latency)
        folder = None if out is None else Path(out)
        return self._picked(budget, rule, form, trial=trial, refit=refit, folder=folder, registry=registry)

    def _picked(
        self,
        budget: Budget,
        rule: Rule,
        form: Form,
        *,
        trial: int | None,
        refit: bool,
        folder: Path | None,
        registry: bool,
    ) -> Picked:
        from kdsearch.workflow.pick import deliver, open_candidates, pick, require_choice, with_refit

        known = open_candidates(self._config, self._home, resume="run()")
        known, trial = with_refit(known, trial=trial, refit=refit)
        choice = require_choice(pick(known, budget=budget, rule=rule, trial=trial, say=_quiet), budget)
        done = deliver(
            known,
            choice,
            form=form,
            out=folder,
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
        """Writes a self-contained HTML report and returns its path (default: ``STUDY-report.html``)."""
        from kdsearch.workflow.results import report

        page = report(self._config, self._home, resume="run()")
        place = Path(out) if out is not None else Path(f"{self._config.name}-report.html")
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(page, encoding="utf-8")
        return place

    def sync(self) -> None:
        """Uploads to MLflow what is missing there.

        Raises KdsearchError if the study was never run or MLflow cannot be reached.
        """
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
    if refit and any(by_rule):
        raise KdsearchError("pick: refit cannot be combined with smallest_within or knee; remove one of them")
    if sum((*by_rule, by_trial)) > 1:
        raise KdsearchError("pick: smallest_within, knee and trial cannot be combined; choose one")


def _quantity(value: int | str | None) -> int | None:
    return parse_quantity(value) if isinstance(value, str) else value


def _quiet(_text: str) -> None:
    pass
