"""Trial records with their learning curves, and the ids of jobs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from kdsearch.config.renamed import FIGURES
from kdsearch.files.schema import Content, Schema, unchanged
from kdsearch.trials.recipe import Recipe, read_recipe
from kdsearch.trials.scores import Cost, Scores, read_scores

_TEACHER = "teacher-"
_REPEAT = "confirm-"


def job_of_trial(number: int) -> str:
    """Returns the id of the job that trains a trial's student."""
    return f"{number:05d}"


def trial_of_job(job_id: str) -> int:
    """Returns the number of the trial whose student the job trains."""
    return int(job_id)


def job_of_teacher(teacher_id: str) -> str:
    """Returns the id of the job that trains a teacher."""
    return f"{_TEACHER}{teacher_id}"


def makes_teacher(job_id: str) -> bool:
    """Returns whether the job trains a teacher."""
    return job_id.startswith(_TEACHER)


def job_of_repeat(plan: str, *, arm: str, repetition: int, fold: int) -> str:
    """Returns the id of the job that trains an arm of a plan in one fold; ``repetition`` and ``fold`` count from 0."""
    return f"{_REPEAT}{plan[:8]}-{repetition + 1}-{fold + 1}-{arm}"


def describe_job(job_id: str, teachers: tuple[str, ...] = ()) -> str:
    """Describes a job in words; ``teachers`` are the jobs of an ensemble's members."""
    if makes_teacher(job_id):
        return f"teacher {teachers.index(job_id) + 1} of {len(teachers)}" if len(teachers) > 1 else "teacher"
    if job_id.startswith(_REPEAT):
        _, _, repetition, fold, arm = job_id.split("-", 4)
        twin = "twin of " if arm.endswith("-twin") else ""
        return f"{twin}trial {arm.removesuffix('-twin')}, repetition {repetition}, fold {fold}"
    return f"trial {trial_of_job(job_id)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """One epoch of one network."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="constants")

    epoch: int
    """From 1."""
    epochs: int
    """Maximum number of epochs."""
    train_loss: float
    validation_loss: float
    dice: float
    """Mean over validation images with a lesion, 0-1."""
    learning_rate: float
    seconds: float
    """Time since the start of training."""


_CURVE = TypeAdapter(tuple[EpochReport, ...])
CURVE = Schema(what="learning curve", upgrades=(unchanged,))
"""Schema 0 was only the list of reports."""


def dump_curve(curve: Sequence[EpochReport]) -> str:
    """Writes a learning curve as JSON."""
    reports = json.loads(_CURVE.dump_json(tuple(curve)))
    return json.dumps(CURVE.stamped({"reports": reports}))


def read_curve(text: str | bytes) -> tuple[EpochReport, ...]:
    """Reads a stored learning curve; raises KdsearchError if a newer release wrote it."""
    content = json.loads(text)
    known = CURVE.upgraded(content if isinstance(content, dict) else {"reports": content})
    return _CURVE.validate_json(json.dumps(known["reports"]))


Outcome = Literal["running", "finished", "stopped", "rejected", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial as stored in the Optuna database."""

    number: int
    outcome: Outcome
    recipe: Recipe | None
    """None if the driver died before it stored the recipe."""
    scores: Scores | None = None
    """None unless finished."""
    cost: Cost | None = None
    """None if it was not counted."""
    curve: tuple[EpochReport, ...] = ()
    reason: str = ""
    """Why it was stopped, rejected or failed."""
    traceback: str = ""
    """Set if an unexpected exception is the reason."""
    lost: tuple[str, ...] = ()
    """The reason for each worker that was lost, in order."""
    started: datetime.datetime | None = None
    ended: datetime.datetime | None = None

    @property
    def job(self) -> str:
        """The id of the job that trains its student."""
        return job_of_trial(self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A finished trial: a student that can be compared and shipped."""

    number: int
    job: str
    """The id of the job that trained it."""
    recipe: Recipe
    scores: Scores
    donor_epochs: int = 0
    """Epochs of all its donors: its own donor, that donor's donor and so on."""
    donor_seconds: float = 0.0
    """Training time of all its donors."""

    def cost_with_donors(self) -> dict[str, float]:
        """Returns epochs and seconds including its donors, as metrics by name; empty if it inherits no weights."""
        if self.recipe.start is None:
            return {}
        return {
            "epochs_with_donors": self.scores.epochs + self.donor_epochs,
            "train_seconds_with_donors": self.scores.train_seconds + self.donor_seconds,
        }


def students_of(records: tuple[TrialRecord, ...]) -> tuple[Student, ...]:
    """Returns the students of the finished trials; ``records`` must be in the order of their numbers."""
    found: dict[int, Student] = {}
    for record in records:
        if record.outcome != "finished" or record.recipe is None or record.scores is None:
            continue
        start = record.recipe.start
        donor = None if start is None else found.get(start.donor)
        found[record.number] = Student(
            number=record.number,
            job=record.job,
            recipe=record.recipe,
            scores=record.scores,
            donor_epochs=0 if donor is None else donor.scores.epochs + donor.donor_epochs,
            donor_seconds=0.0 if donor is None else donor.scores.train_seconds + donor.donor_seconds,
        )
    return tuple(found.values())


def _specificity(content: Content) -> Content:
    """Schema 1 called it another name."""
    return {FIGURES.get(key, key): value for key, value in content.items()}


SCHEMA = Schema(what="trial", upgrades=(unchanged, _specificity))
COST = Schema(what="cost", upgrades=(unchanged,))
_COST = TypeAdapter(Cost)


def dump_cost(cost: Cost) -> str:
    """Writes the cost of a stopped trial as JSON."""
    return json.dumps(COST.stamped(_COST.dump_python(cost, mode="json")))


def read_cost(text: str) -> Cost:
    """Reads a stored cost; raises KdsearchError if a newer release wrote it."""
    return _COST.validate_python(COST.upgraded(json.loads(text)))


def read_record(
    number: int,
    stored: Mapping[str, Any],
    *,
    running: bool,
    started: datetime.datetime | None,
    ended: datetime.datetime | None,
) -> TrialRecord:
    """Reads a stored trial; raises KdsearchError if a newer release wrote it."""
    known = SCHEMA.upgraded(stored)
    outcome: Outcome = "running" if running else known.get("outcome", "failed")
    return TrialRecord(
        number=number,
        outcome=outcome,
        recipe=read_recipe(known["recipe"]) if "recipe" in known else None,
        scores=read_scores(known["scores"]) if outcome == "finished" else None,
        cost=read_cost(known["cost"]) if "cost" in known else None,
        curve=read_curve(known.get("curve", "[]")),
        reason=known.get("reason", ""),
        traceback=known.get("traceback", ""),
        lost=tuple(json.loads(known.get("lost", "[]"))),
        started=started,
        ended=ended,
    )
