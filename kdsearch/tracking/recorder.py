"""Writes a study to MLflow: an experiment with runs for the study, its teachers and its trials."""

from __future__ import annotations

import datetime
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run
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
    find_runs,
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
"""Tag: ``true`` on runs with weights and overlays."""
FRONT = "kdsearch.front"
"""Tag: ``true`` on the runs of students on the front."""
EXPERIMENT_KIND = "mlflow.experimentKind"
"""Tag: makes MLflow show the experiment as training runs."""
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "rejected": "KILLED"}
METRICS_PER_BATCH = 1000
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class Recorder:
    """Writes one study's runs to MLflow; writing the same thing twice changes nothing."""

    def __init__(self, study: StudyConfig, tracking: Tracking, *, study_id: str) -> None:
        """Opens or creates the experiment and the study's run; raises KdsearchError if MLflow cannot be reached.

        Runs of another study with the same name but another ``study_id`` are not changed.
        """
        self.away = ""
        """Why some data could not be written yet; empty if MLflow is up to date."""
        self.was_finished = False
        """Whether an earlier main process finished the study, according to MLflow."""
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
            """Path of the view of the study's front on any MLflow server."""
            self._runs = self._existing_runs()
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
        """Writes the data set's fingerprint, sources and split sizes to the study's run."""
        sizes = {"images": data.images, "train": data.train, "validation": data.validation, "test": data.test}
        entity = DatasetEntity(
            name="+".join(data.sources),
            digest=data.fingerprint,
            source_type="kdsearch",
            source=json.dumps({"sources": data.sources, "split": data.split}),
            profile=json.dumps(sizes),
        )
        self._dataset = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        self.write("data", lambda: self._client.log_inputs(self._parent, datasets=self._dataset))

    def teacher(self, job: str, scores: Scores, curve: tuple[EpochReport, ...]) -> None:
        """Writes a run for the teacher that the job trained."""
        unnamed = self._runs.pop(("teacher", ""), None)
        if unnamed is not None:  # early releases wrote no job for the teacher
            self._runs["teacher", job] = unnamed
        if not self._is_recorded("teacher", job):
            self.write(job, lambda: self._write_teacher(job, scores, curve))

    def trial(self, record: TrialRecord) -> None:
        """Writes a run for a trial that has ended: recipe, curve, scores and outcome."""
        if record.outcome != "running" and not self._is_recorded("trial", record.job):
            self.write(record.job, lambda: self._write_trial(record))

    def front(self, members: Iterable[str]) -> None:
        """Sets the front's tag on the runs of these jobs, and clears it on all others."""
        wanted = set(members)
        self.write("front", lambda: self._mark(wanted))

    def chart(self, page: str) -> None:
        """Attaches the front's HTML page to the study's run, replacing the previous version."""
        self.write("chart", lambda: self._write_files(self._parent, {"front.html": page.encode()}))

    def note(self, text: str) -> None:
        """Sets the text of the study run's page, in Markdown."""
        self.write("note", lambda: self._client.set_tag(self._parent, MLFLOW_RUN_NOTE, text))

    def lacks_pictures(self, job: str) -> bool:
        """Whether the trial's run exists but has no weights and overlays yet."""
        run = self._runs.get(("trial", job))
        return run is not None and run.data.tags.get(PICTURED) != "true"

    def member(self, job: str, *, weights: bytes, overlays: bytes) -> None:
        """Attaches weights and overlays to the run of a student on the front."""
        files = {"model.safetensors": weights, "overlays.png": overlays}
        self.write(f"member {job}", lambda: self._write_member(job, files))

    def standing(self, job: str, metrics: dict[str, float]) -> None:
        """Writes the metrics that compare a trial's student with all others; unchanged values are not written again."""
        run = self._runs.get(("trial", job))
        changed = {key: value for key, value in metrics.items() if run is None or run.data.metrics.get(key) != value}
        if run is not None and changed:
            self.write(f"standing {job}", lambda: self._write_standing(run, changed))

    def summary(self, metrics: dict[str, float]) -> None:
        """Writes metrics of the whole study."""
        now = milliseconds(None)
        entries = [Metric(key, value, now, 0) for key, value in metrics.items()]
        self.write("summary", lambda: self._client.log_batch(self._parent, entries))

    def close(self, *, finished: bool) -> None:
        """Sets the final status of the study's run, and tries once more to write everything that is pending."""
        status = "FINISHED" if finished else "KILLED"
        self._pending["end"] = lambda: self._client.set_terminated(self._parent, status)
        self.catch_up(at_once=True)

    @property
    def pending(self) -> tuple[str, ...]:
        """The keys of the writes that MLflow has not taken yet."""
        return tuple(self._pending)

    def catch_up(self, *, at_once: bool = False) -> None:
        """Writes what is pending until a write fails; ``away`` then gives the reason.

        After a failure, does nothing for a while, longer each time, except with ``at_once``.
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
                self._pending[key] = self._pending.pop(key)  # try the others first the next time
                break
            else:
                del self._pending[key]
        self.away = reason
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S) if reason else 0.0
        self._not_before = time.monotonic() + self._pause_s

    def write(self, key: str, write: Callable[[], object]) -> None:
        """Writes this and what is pending; a later write with the same key replaces a pending one."""
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
        """Updates kdsearch's saved views and leaves people's own views unchanged."""
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
        """Whether the run exists and is complete; interrupted runs still have the status of a running one."""
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

    def _existing_runs(self) -> dict[tuple[str, str], Run]:
        runs = find_runs(self._client, self._experiment_id, f"tags.`{STUDY}` = '{self._study_id}'")
        return {_key(run): run for run in runs}

    def _run(
        self,
        kind: str,
        *,
        name: str,
        job: str = "",
        tags: dict[str, str] | None = None,
        started: datetime.datetime | None = None,
    ) -> str:
        """Returns the ID of the run of that kind and job; creates the run if it is missing."""
        key = (kind, job)
        if key not in self._runs and key in self._unanswered:  # the run may exist although the answer was lost
            self._runs = self._existing_runs()
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
        """Logs everything with the same time, so that logging it again adds nothing."""
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
    """The run's kind and job; early releases tagged trials with their number only."""
    tags = run.data.tags
    job = tags.get(JOB) or (job_of_trial(int(tags[TRIAL])) if TRIAL in tags else "")
    return tags.get(KIND, ""), job
