"""What jobs are called; an executor knows no more of what a job stands for."""

from __future__ import annotations

_TEACHER = "teacher-"


def job_of_trial(number: int) -> str:
    """The id of the job that makes a trial's student."""
    return f"{number:05d}"


def trial_of_job(job_id: str) -> int:
    """The number of the trial whose student the job makes."""
    return int(job_id)


def job_of_teacher(teacher_id: str) -> str:
    """The id of the job that makes a teacher."""
    return f"{_TEACHER}{teacher_id}"


def makes_teacher(job_id: str) -> bool:
    """Whether the job makes a teacher."""
    return job_id.startswith(_TEACHER)


def describe_job(job_id: str) -> str:
    """As people are told of it."""
    return "teacher" if makes_teacher(job_id) else f"trial {trial_of_job(job_id)}"
