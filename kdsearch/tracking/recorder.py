"""Writes a study to MLflow: an experiment, a study run, a teacher run, and a run for each trial."""

from __future__ import annotations

import datetime
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, ViewType
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME

from kdsearch.config.load import dump_study
from kdsearch.config.space import dimensions
from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import DataSummary
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import describe_teacher
from kdsearch.errors import KdsearchError
from kdsearch.tracking.client import (
    JOB,
    KIND,
    STUDY,
    TRIAL,
    add_new_names,
    code_version,
    environment_tags,
    flatten,
    logarithms,
    milliseconds,
    reason_of,
    store_errors,
    tool_tags,
)
from kdsearch.tracking.location import Tracking, open_client, view_page
from kdsearch.tracking.views import FRONT as FRONT_VIEW
from kdsearch.tracking.views import holds_another, saved_views
from kdsearch.trials.record import EpochReport, TrialRecord, job_of_trial
from kdsearch.trials.scores import Scores
from kdsearch.version import __version__, installed_packages

PICTURED = "kdsearch.pictured"
"""Tag: ``true`` on runs that hold weights and overlays."""
FRONT = "kdsearch.front"
"""Tag: ``true`` on the runs of the front's members."""
EXPERIMENT_KIND = "mlflow.experimentKind"
"""Tag by which MLflow's UI knows that the experiment's page is about training runs."""
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "rejected": "KILLED"}
METRICS_PER_BATCH = 1000
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class Recorder:
    """One study's record in MLflow; writing the same thing twice changes nothing."""

    def __init__(self, study: StudyConfig, tracking: Tracking, *, study_id: str) -> None:
        """Opens or makes the experiment and the study run; raises KdsearchError where the store cannot be reached.

        ``study_id`` tells the study from another of the same name, whose runs are left alone.
        """
        self.away = ""
        """Why the store lacks something; empty where it is level."""
        self.was_finished = False
        """Whether the record says that the last driver finished the study."""
        self._study = study
        self._study_id = study_id
        self._tracking = tracking
        self._pending: dict[str, Callable[[], object]] = {}
        self._pause_s = 0.0
        self._not_before = 0.0
        self._unanswered: set[tuple[str, str]] = set()
        self._code_version = code_version()
        self._dataset: list[DatasetInput] = []
        try:
            self._client = open_client(tracking)
            self._experiment_id = self._experiment(tracking)
            self.page = view_page(FRONT_VIEW, self._experiment_id, study_id)
            """The view of the study's front, as a path on any server of the record."""
            self._runs = {_key(run): run for run in self._existing_runs()}
            for run in self._runs.values():
                add_new_names(self._client, run)
            self._parent = self._run("study", name=study.name)
            self.was_finished = self._runs["study", ""].info.status == "FINISHED"
            self._client.update_run(self._parent, status="RUNNING")
            self._client.log_text(self._parent, dump_study(study), "study.yaml")
            self._client.log_text(self._parent, installed_packages(), "environment.txt")
            self._write_views()
        except store_errors() as error:
            raise KdsearchError(f"tracking: {tracking.shown} cannot be used: {reason_of(error, tracking)}") from error

    def describe_data(self, data: DataSummary) -> None:
        """Records the data set's fingerprint, sources and split sizes with the study."""
        sizes = {"images": data.images, "train": data.train, "validation": data.validation, "test": data.test}
        entity = DatasetEntity(
            name="+".join(data.sources),
            digest=data.fingerprint,
            source_type="kdsearch",
            source=json.dumps({"sources": data.sources, "split": data.split}),
            profile=json.dumps(sizes),
        )
        self._dataset = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        self._write("data", lambda: self._client.log_inputs(self._parent, datasets=self._dataset))

    def teacher(self, job: str, scores: Scores, curve: tuple[EpochReport, ...]) -> None:
        """Records the teacher that the job made as a run of its own."""
        unnamed = self._runs.pop(("teacher", ""), None)
        if unnamed is not None:  # from when a study's teacher needed no name
            self._runs["teacher", job] = unnamed
        if not self._is_recorded("teacher", job):
            self._write(job, lambda: self._write_teacher(job, scores, curve))

    def trial(self, record: TrialRecord) -> None:
        """Records an ended trial: recipe, curve, scores, outcome."""
        if record.outcome != "running" and not self._is_recorded("trial", record.job):
            self._write(record.job, lambda: self._write_trial(record))

    def front(self, members: Iterable[str]) -> None:
        """Marks the runs of the front's members, given by their jobs, and no others."""
        wanted = set(members)
        self._write("front", lambda: self._mark(wanted))

    def chart(self, page: str) -> None:
        """Attaches the front as an HTML page to the study run, in the place of the last one."""
        self._write("chart", lambda: self._write_files(self._parent, {"front.html": page.encode()}))

    def note(self, text: str) -> None:
        """What the study run's page says, as Markdown."""
        self._write("note", lambda: self._client.set_tag(self._parent, MLFLOW_RUN_NOTE, text))

    def lacks_pictures(self, job: str) -> bool:
        """Whether the run of a trial's job has neither weights nor overlays yet."""
        run = self._runs.get(("trial", job))
        return run is not None and run.data.tags.get(PICTURED) != "true"

    def member(self, job: str, *, weights: bytes, overlays: bytes) -> None:
        """Attaches weights and overlay sheet to the run of a front's member."""
        files = {"model.safetensors": weights, "overlays.png": overlays}
        self._write(f"member {job}", lambda: self._write_member(job, files))

    def standing(self, job: str, metrics: dict[str, float]) -> None:
        """Records with a trial's run how its student stands among all; what has not changed is not written again."""
        run = self._runs.get(("trial", job))
        changed = {key: value for key, value in metrics.items() if run is None or run.data.metrics.get(key) != value}
        if run is not None and changed:
            self._write(f"standing {job}", lambda: self._write_standing(run, changed))

    def summary(self, metrics: dict[str, float]) -> None:
        """Figures of the study as a whole."""
        now = milliseconds(None)
        entries = [Metric(key, value, now, 0) for key, value in metrics.items()]
        self._write("summary", lambda: self._client.log_batch(self._parent, entries))

    def close(self, *, finished: bool) -> None:
        """Says in the study run how this driver left it."""
        status = "FINISHED" if finished else "KILLED"
        self._pending["end"] = lambda: self._client.set_terminated(self._parent, status)
        self.catch_up(at_once=True)

    def catch_up(self, *, at_once: bool = False) -> None:
        """Tries again what the store has not taken, until it refuses; ``away`` says why where something is left.

        After a refusal the store is left alone for a while, longer each time, unless it is to be ``at_once``.
        """
        if time.monotonic() < self._not_before and not at_once:
            return
        reason = ""
        for key, write in list(self._pending.items()):
            try:
                self._tracking.require()
                write()
            except KdsearchError as error:
                reason = str(error)
                break
            except store_errors() as error:
                reason = reason_of(error, self._tracking)
                self._pending[key] = self._pending.pop(key)  # others come first the next time
                break
            else:
                del self._pending[key]
        self.away = reason
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S) if reason else 0.0
        self._not_before = time.monotonic() + self._pause_s

    def _write(self, key: str, write: Callable[[], object]) -> None:
        """Writes what is pending and this; a later write under the same key takes an earlier one's place."""
        self._pending[key] = write
        self.catch_up()

    def _write_teacher(self, job: str, scores: Scores, curve: tuple[EpochReport, ...]) -> None:
        run_id = self._run("teacher", name="teacher", job=job, tags=tool_tags(scores))
        settings = flatten(self._study.teacher.model_dump())
        self._log(run_id, scores.metrics(), curve=curve, params=settings, moment=None)
        self._client.log_text(run_id, describe_teacher(TeacherRecipe.of(self._study)), "teacher.yaml")
        self._terminate(run_id, "FINISHED", None)

    def _write_trial(self, record: TrialRecord) -> None:
        name = f"trial {record.number}" + (f" {record.recipe.path}" if record.recipe else "")
        tags = {TRIAL: str(record.number), "kdsearch.outcome": record.outcome, "kdsearch.reason": record.reason}
        tags |= tool_tags(record.scores) if record.scores else {}
        metrics = record.scores.metrics() | logarithms(record.scores) if record.scores else {}
        params = record.recipe.settings() if record.recipe else {}
        run_id = self._run("trial", name=name, job=record.job, tags=tags, started=record.started)
        self._log(run_id, metrics, curve=record.curve, params=params, moment=record.ended)
        self._terminate(run_id, STATUS[record.outcome], record.ended)
        if record.traceback:
            self._client.log_text(run_id, record.traceback, "traceback.txt")

    def _write_member(self, job: str, files: dict[str, bytes]) -> None:
        run = self._runs["trial", job]
        self._write_files(run.info.run_id, files)
        self._client.set_tag(run.info.run_id, PICTURED, "true")
        run.data.tags[PICTURED] = "true"

    def _write_standing(self, run: Run, metrics: dict[str, float]) -> None:
        now = milliseconds(None)
        self._client.log_batch(run.info.run_id, [Metric(key, value, now, 0) for key, value in metrics.items()])
        run.data.metrics.update(metrics)

    def _write_files(self, run_id: str, files: dict[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self._client.log_artifacts(run_id, folder)

    def _write_views(self) -> None:
        """Keeps the saved views up to date, and no others."""
        known = self._client.get_experiment(self._experiment_id).tags
        began = self._runs["study", ""].info.start_time
        views = saved_views(
            study_id=self._study_id,
            searched=list(dimensions(self._study)),
            created=datetime.datetime.fromtimestamp(began / 1000, tz=datetime.UTC),
            is_alone=not holds_another(known, self._study_id),
            is_timed="latency_ms" in self._study.search.objectives,
        )
        for key, value in views.items():
            if known.get(key) != value:
                self._client.set_experiment_tag(self._experiment_id, key, value)

    def _mark(self, wanted: set[str]) -> None:
        for (kind, job), run in self._runs.items():
            marked = run.data.tags.get(FRONT) == "true"
            if kind == "trial" and marked != (job in wanted):
                self._client.set_tag(run.info.run_id, FRONT, str(job in wanted).lower())
                run.data.tags[FRONT] = str(job in wanted).lower()

    def _is_recorded(self, kind: str, job: str) -> bool:
        """Whether the run is there and whole: one that was broken off is still marked as running."""
        run = self._runs.get((kind, job))
        return run is not None and run.info.status in STATUS.values()

    def _terminate(self, run_id: str, status: str, moment: datetime.datetime | None) -> None:
        self._client.set_terminated(run_id, status, milliseconds(moment))
        for key, run in self._runs.items():
            if run.info.run_id == run_id:
                self._runs[key] = self._client.get_run(run_id)

    def _experiment(self, tracking: Tracking) -> str:
        experiment = self._client.get_experiment_by_name(self._study.name)
        if experiment is not None and experiment.lifecycle_stage == "active":
            return str(experiment.experiment_id)
        if experiment is not None:
            self._client.restore_experiment(experiment.experiment_id)
            return str(experiment.experiment_id)
        return self._client.create_experiment(
            self._study.name,
            artifact_location=tracking.artifact_location(),
            tags={EXPERIMENT_KIND: "custom_model_development"},
        )

    def _existing_runs(self) -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        wanted = f"tags.`{STUDY}` = '{self._study_id}'"
        while True:
            page = self._client.search_runs([self._experiment_id], wanted, ViewType.ACTIVE_ONLY, 1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _run(
        self,
        kind: str,
        *,
        name: str,
        job: str = "",
        tags: dict[str, str] | None = None,
        started: datetime.datetime | None = None,
    ) -> str:
        """The run of that kind and job, made where it is missing."""
        key = (kind, job)
        if key not in self._runs and key in self._unanswered:  # it may have been made though the answer was lost
            self._runs = {_key(run): run for run in self._existing_runs()}
        known = self._runs.get(key)
        if known is not None:
            return str(known.info.run_id)
        all_tags = {KIND: kind, STUDY: self._study_id, MLFLOW_SOURCE_NAME: "kdsearch", "kdsearch.version": __version__}
        all_tags |= {**self._code_version, **(tags or {})}
        if job:
            all_tags[JOB] = job
        if kind == "study":
            all_tags |= environment_tags()
        else:
            all_tags[MLFLOW_PARENT_RUN_ID] = self._parent
        self._unanswered.add(key)
        run = self._client.create_run(
            self._experiment_id, start_time=milliseconds(started), tags=all_tags, run_name=name
        )
        self._unanswered.discard(key)
        self._runs[key] = run
        return str(run.info.run_id)

    def _log(
        self,
        run_id: str,
        scores: dict[str, float],
        *,
        curve: Iterable[EpochReport],
        params: dict[str, str],
        moment: datetime.datetime | None,
    ) -> None:
        """Logs in batches, all at one moment, so that logging the same again adds nothing."""
        now = milliseconds(moment)
        metrics = [Metric(key, float(value), now, 0) for key, value in scores.items()]
        for report in curve:
            epoch = {"curve/train_loss": report.train_loss, "curve/validation_loss": report.validation_loss}
            epoch |= {"curve/dice": report.dice, "curve/learning_rate": report.learning_rate}
            metrics += [Metric(key, value, now, report.epoch) for key, value in epoch.items() if not math.isnan(value)]
        self._client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
        for start in range(0, len(metrics), METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics[start : start + METRICS_PER_BATCH])
        if self._dataset:
            self._client.log_inputs(run_id, datasets=self._dataset)


def _key(run: Run) -> tuple[str, str]:
    """Its kind and its job; runs of trials from before jobs had tags are found by the trial's number."""
    tags = run.data.tags
    job = tags.get(JOB) or (job_of_trial(int(tags[TRIAL])) if TRIAL in tags else "")
    return tags.get(KIND, ""), job
