"""A picked student as a folder: its weights and all that is needed to use them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import yaml

from kdsearch.config.study import StudyConfig
from kdsearch.distill.record import Student
from kdsearch.distill.views import GREY_MEAN, GREY_STD
from kdsearch.errors import KdsearchError


def export_student(student: Student, study: StudyConfig, weights: Path, folder: Path) -> None:
    """Writes ``model.safetensors`` and ``student.yaml`` to a new folder, whole or not at all.

    Raises KdsearchError where the folder exists or the weights are not there.
    """
    if folder.exists():
        raise KdsearchError(f"{folder} exists already; remove it, or name another folder with --out")
    if not weights.is_file():
        raise KdsearchError(
            f"the weights of trial {student.number} are not at {weights}; was KDSEARCH_HOME another folder then?"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        shutil.copyfile(weights, beside / "model.safetensors")
        (beside / "student.yaml").write_text(describe_student(student, study), encoding="utf-8")
        beside.chmod(0o755)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def describe_student(student: Student, study: StudyConfig) -> str:
    """YAML with recipe, input and scores."""
    size = study.data.size
    content = {
        "study": study.name,
        "trial": student.number,
        "input": {
            "size": [size, size],
            "channels": 1,
            "grey_values": "0-255, divided by 255",
            "mean": GREY_MEAN,
            "std": GREY_STD,
        },
        "output": {"classes": 1, "activation": "sigmoid", "lesion_where": "logit > 0"},
        "scores": {"split": "validation", **student.scores.metrics()},
        "counted_by": [count.describe() for count in student.scores.tool_counts],
        "recipe": student.recipe.model_dump(mode="json"),
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
