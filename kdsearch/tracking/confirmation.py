"""Writes a confirmation to MLflow: a run under the study's, one for each arm, and one for each of its repeats."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from dataclasses import dataclass

from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME

from kdsearch.errors import KdsearchError
from kdsearch.statistics.confirmation import ArmAnswer, Confirmation, Kind, dump_confirmation
from kdsearch.tracking.client import JOB, KIND, STUDY, milliseconds, reason_of, store_errors
from kdsearch.tracking.location import Tracking, open_client, view_page
from kdsearch.tracking.views import CONFIRMED, confirmed_view
from kdsearch.trials.scores import Scores
from kdsearch.version import __version__

MOST_RUNS = 1000
ARM: dict[Kind, str] = {"confirm": "confirmed", "test": "tested"}
"""Tag of an arm's run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRepeat:
    """One training of an arm, as it is recorded."""

    arm: str
    repetition: int
    fold: int
    """Both from 0."""
    scores: Scores


def record_confirmation(
    found: Confirmation, repeats: Iterable[RecordedRepeat], *, note: str, tracking: Tracking, study_id: str
) -> str:
    """Writes what is not there yet, and returns the view of the confirmed front as a path on any server of the record.

    Writing the same again changes nothing. ``note`` is Markdown for the run's page. Raises KdsearchError where it
    cannot be reached, or does not know the study.
    """
    try:
        tracking.require()
        return _Record(found, tracking=tracking, study_id=study_id).write(repeats, note=note)
    except store_errors() as error:
        raise KdsearchError(
            f"tracking: {tracking.shown} does not take the confirmation: {reason_of(error, tracking)}"
        ) from error


class _Record:
    """One confirmation's runs."""

    def __init__(self, found: Confirmation, *, tracking: Tracking, study_id: str) -> None:
        self._found, self._study_id = found, study_id
        self._key = f"{found.plan}-{found.sealed}"
        self._moment = milliseconds(datetime.datetime.fromisoformat(found.sealed))
        self._client = open_client(tracking)
        experiment = self._client.get_experiment_by_name(found.study)
        unknown = KdsearchError(f"tracking: {tracking.shown} does not hold study {found.study}")
        if experiment is None:
            raise unknown
        self._experiment_id = str(experiment.experiment_id)
        self._tags = experiment.tags
        self._runs = {(run.data.tags.get(KIND, ""), run.data.tags.get(JOB, "")): run for run in self._existing()}
        if ("study", "") not in self._runs:
            raise unknown

    def write(self, repeats: Iterable[RecordedRepeat], *, note: str) -> str:
        """Everything, the view last."""
        found = self._found
        study = self._runs["study", ""].info.run_id
        whole = self._run(found.kind, self._key, name=f"{found.kind} {found.number}", parent=study)
        if whole is not None:
            self._client.set_tag(whole, MLFLOW_RUN_NOTE, note)
            self._client.log_text(whole, dump_confirmation(found), "confirmation.json")
        parent = self._runs[found.kind, self._key].info.run_id
        for arm in (*found.arms, found.teacher):
            self._write(
                ARM[found.kind],
                f"{self._key}-{arm.id}",
                name=arm.name,
                parent=parent,
                metrics=arm_metrics(found, arm),
                params={"role": arm.role, "path": arm.path},
            )
        for repeat in repeats:
            self._write(
                "repeat",
                f"{self._key}-{repeat.arm}-{repeat.repetition + 1}-{repeat.fold + 1}",
                name=f"repetition {repeat.repetition + 1}, fold {repeat.fold + 1}",
                parent=self._runs[ARM[found.kind], f"{self._key}-{repeat.arm}"].info.run_id,
                metrics=repeat.scores.metrics(),
                params={"repetition": str(repeat.repetition + 1), "fold": str(repeat.fold + 1)},
            )
        if whole is not None:
            self._client.set_terminated(whole, "FINISHED")
        if found.kind == "confirm":
            self._write_view()
        return view_page(CONFIRMED, self._experiment_id, self._study_id)

    def _write(
        self, kind: str, job: str, *, name: str, parent: str, metrics: dict[str, float], params: dict[str, str]
    ) -> None:
        run_id = self._run(kind, job, name=name, parent=parent)
        if run_id is None:
            return
        entries = [
            Metric(key, float(value), self._moment, 0) for key, value in metrics.items() if not math.isnan(value)
        ]
        self._client.log_batch(run_id, metrics=entries, params=[Param(key, value) for key, value in params.items()])
        self._client.set_terminated(run_id, "FINISHED")

    def _run(self, kind: str, job: str, *, name: str, parent: str) -> str | None:
        """A run that is to be written; None where it is there and whole."""
        known = self._runs.get((kind, job))
        if known is None:
            tags = {KIND: kind, JOB: job, STUDY: self._study_id, MLFLOW_PARENT_RUN_ID: parent}
            tags |= {MLFLOW_SOURCE_NAME: "kdsearch", "kdsearch.version": __version__, "kdsearch.plan": self._found.plan}
            known = self._runs[kind, job] = self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        return None if known.info.status == "FINISHED" else str(known.info.run_id)

    def _existing(self) -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        wanted = f"tags.`{STUDY}` = '{self._study_id}' AND tags.`{KIND}` != 'trial'"
        while True:
            page = self._client.search_runs(
                [self._experiment_id], wanted, ViewType.ACTIVE_ONLY, MOST_RUNS, page_token=token
            )
            runs += page
            token = page.token
            if not token:
                return runs

    def _write_view(self) -> None:
        sealed = datetime.datetime.fromisoformat(self._found.sealed)
        for key, value in confirmed_view(study_id=self._study_id, plan=self._found.plan, created=sealed).items():
            if self._tags.get(key) != value:
                self._client.set_experiment_tag(self._experiment_id, key, value)


def arm_metrics(found: Confirmation, arm: ArmAnswer) -> dict[str, float]:
    """What was found of an arm, by name."""
    metrics = {
        "dice": arm.dice.mean,
        "dice_low": arm.dice.low,
        "dice_high": arm.dice.high,
        "dice_at_size": arm.dice_at_size,
        "nsd": arm.nsd,
        "hd95": arm.hd95,
        "found": arm.found,
        "below_half": arm.below_half,
        "std_images": arm.std_images,
    }
    optional = {"selection_bias": arm.selection_bias, "std_runs": arm.std_runs, "false_positives": arm.false_positives}
    metrics |= {name: value for name, value in optional.items() if value is not None}
    if arm.params:  # not known of a teacher that kdsearch did not build
        metrics |= {"params": arm.params, "macs": arm.macs, "log10_params": math.log10(arm.params)}
    effect = next((effect.difference for effect in found.effects if effect.member == arm.id), None)
    if effect is not None:
        metrics |= {"over_twin": effect.mean, "over_twin_low": effect.low, "over_twin_high": effect.high}
    return metrics
