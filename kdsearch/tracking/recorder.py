"""Writes a study to MLflow: an experiment, a study run, a teacher run, and a run for each trial."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import logging
import platform
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME
from sqlalchemy.exc import SQLAlchemyError

from kdsearch import __version__
from kdsearch.config.load import dump_study
from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import Dataset, Splits
from kdsearch.distill.record import TrialRecord
from kdsearch.distill.report import EpochReport
from kdsearch.distill.teacher import TrainedTeacher
from kdsearch.errors import KdsearchError
from kdsearch.tracking.location import Tracking
from mlflow import MlflowClient

KIND = "kdsearch.kind"
"""Tag: ``study``, ``teacher`` or ``trial``."""
TRIAL = "kdsearch.trial"
"""Tag: the trial's number in Optuna's storage."""
FRONT = "kdsearch.front"
"""Tag: ``true`` on the runs of the front's members."""
EXPERIMENT_KIND = "mlflow.experimentKind"
"""Tag by which MLflow's UI knows that the experiment's page is about training runs."""
STATUS = {"finished": "FINISHED", "failed": "FAILED", "rejected": "KILLED"}
METRICS_PER_BATCH = 1000


class Recorder:
    """One study's record in MLflow; writing the same thing twice changes nothing."""

    def __init__(self, study: StudyConfig, tracking: Tracking) -> None:
        """Opens or makes the experiment and the study run; raises KdsearchError where the store cannot be reached."""
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._study = study
        try:
            self._client = MlflowClient(_prepared(tracking))
            self.experiment_id = self._experiment(tracking)
            self._runs = {_key(run): run for run in self._existing_runs()}
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise KdsearchError(f"tracking: {tracking.uri} cannot be used: {str(error).splitlines()[0]}") from error
        self._parent = self._run("study", name=study.name)
        self._client.update_run(self._parent, status="RUNNING")
        self._client.log_text(self._parent, dump_study(study), "study.yaml")
        self._dataset: list[DatasetInput] = []

    def describe_data(self, dataset: Dataset, splits: Splits) -> None:
        """Records the data set's fingerprint, sources and split sizes with the study."""
        names = sorted({info.source for info in dataset.infos})
        sizes = {part: len(getattr(splits, part)) for part in ("train", "validation", "test")}
        entity = DatasetEntity(
            name="+".join(names),
            digest=dataset.fingerprint,
            source_type="kdsearch",
            source=json.dumps({"sources": names, "split": splits.fingerprint}),
            profile=json.dumps({"images": len(dataset.infos), **sizes}),
        )
        self._dataset = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        self._client.log_inputs(self._parent, datasets=self._dataset)

    def teacher(self, teacher: TrainedTeacher) -> None:
        """Records the teacher as a run of its own."""
        if ("teacher", "") in self._runs:
            return
        run_id = self._run("teacher", name="teacher", parent=True)
        settings = {
            "architecture": teacher.config.architecture,
            "encoder": teacher.config.encoder,
            "weights": teacher.config.weights,
        }
        self._log(run_id, teacher.scores.metrics(), teacher.curve, settings)
        self._client.log_artifact(run_id, str(teacher.folder / "teacher.yaml"))
        self._client.set_terminated(run_id)

    def trial(self, record: TrialRecord) -> None:
        """Records an ended trial: recipe, curve, scores, outcome."""
        if record.outcome == "running" or ("trial", str(record.number)) in self._runs:
            return
        name = f"trial {record.number}" + (f" {record.recipe.path}" if record.recipe else "")
        tags = {"kdsearch.outcome": record.outcome, "kdsearch.reason": record.reason}
        run_id = self._run("trial", name=name, number=record.number, parent=True, tags=tags, started=record.started)
        metrics = record.scores.metrics() if record.scores else {}
        self._log(run_id, metrics, record.curve, record.recipe.settings() if record.recipe else {})
        self._client.set_terminated(run_id, STATUS[record.outcome], _milliseconds(record.ended))

    def front(self, members: Iterable[int]) -> None:
        """Marks the runs of the front's members, and no others."""
        wanted = {str(number) for number in members}
        for (kind, number), run in list(self._runs.items()):
            marked = run.data.tags.get(FRONT) == "true"
            if kind == "trial" and marked != (number in wanted):
                self._client.set_tag(run.info.run_id, FRONT, str(number in wanted).lower())
                run.data.tags[FRONT] = str(number in wanted).lower()

    def chart(self, page: str) -> None:
        """Attaches the front's HTML page to the study run, in the place of the last one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "front.html"
            path.write_text(page, encoding="utf-8")
            self._client.log_artifact(self._parent, str(path))

    def summary(self, metrics: dict[str, float]) -> None:
        """Figures of the study as a whole."""
        now = _milliseconds(None)
        self._client.log_batch(self._parent, [Metric(key, value, now, 0) for key, value in metrics.items()])

    def close(self, *, finished: bool) -> None:
        """Says in the study run how this driver left it."""
        self._client.set_terminated(self._parent, "FINISHED" if finished else "KILLED")

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
        while True:
            page = self._client.search_runs(
                [self.experiment_id], f"tags.`{KIND}` LIKE '%'", ViewType.ACTIVE_ONLY, 1000, page_token=token
            )
            runs += page
            token = page.token
            if not token:
                return runs

    def _run(
        self,
        kind: str,
        *,
        name: str,
        number: int | None = None,
        parent: bool = False,
        tags: dict[str, str] | None = None,
        started: datetime.datetime | None = None,
    ) -> str:
        """The run of that kind and number, made where it is missing."""
        known = self._runs.get((kind, "" if number is None else str(number)))
        if known is not None:
            return str(known.info.run_id)
        all_tags = {KIND: kind, MLFLOW_SOURCE_NAME: "kdsearch", "kdsearch.version": __version__, **(tags or {})}
        if number is not None:
            all_tags[TRIAL] = str(number)
        if parent:
            all_tags[MLFLOW_PARENT_RUN_ID] = self._parent
        else:
            all_tags |= _environment()
            all_tags[MLFLOW_RUN_NOTE] = (
                f"Study **{self._study.name}**: `study.yaml` is what ran, `front.html` the front."
            )
        run = self._client.create_run(
            self.experiment_id, start_time=_milliseconds(started), tags=all_tags, run_name=name
        )
        self._runs[_key(run)] = run
        return str(run.info.run_id)

    def _log(self, run_id: str, scores: dict[str, float], curve: Iterable[EpochReport], params: dict[str, str]) -> None:
        now = _milliseconds(None)
        metrics = [Metric(key, float(value), now, 0) for key, value in scores.items()]
        for report in curve:
            epoch = {"curve/train_loss": report.train_loss, "curve/validation_loss": report.validation_loss}
            epoch |= {"curve/dice": report.dice, "curve/learning_rate": report.learning_rate}
            metrics += [Metric(key, value, now, report.epoch) for key, value in epoch.items() if value == value]  # noqa: PLR0124 - not NaN
        self._client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
        for start in range(0, len(metrics), METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics[start : start + METRICS_PER_BATCH])
        if self._dataset:
            self._client.log_inputs(run_id, datasets=self._dataset)


def _key(run: Run) -> tuple[str, str]:
    return run.data.tags.get(KIND, ""), run.data.tags.get(TRIAL, "")


def _prepared(tracking: Tracking) -> str:
    if tracking.embedded:
        Path(tracking.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return tracking.uri


def _milliseconds(moment: datetime.datetime | None) -> int:
    return int((moment or datetime.datetime.now(datetime.UTC)).timestamp() * 1000)


def _environment() -> dict[str, str]:
    versions = {
        f"version.{name}": importlib.metadata.version(name)
        for name in ("torch", "timm", "optuna", "segmentation-models-pytorch")
    }
    return {"python": platform.python_version(), "processor": platform.machine(), **versions, **_code_version()}


def _code_version() -> dict[str, str]:
    """The commit of kdsearch's own checkout, where it runs from one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return {}
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - fixed words
    return {"mlflow.source.git.commit": commit} if commit else {}
