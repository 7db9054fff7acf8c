"""What the record says of scores, settings and the machine, in MLflow's words."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import platform
from typing import Any

from kdsearch.trials.scores import Scores
from kdsearch.version import commit_of_checkout


def milliseconds(moment: datetime.datetime | None) -> int:
    """Since 1970; now where there is no moment."""
    return int((moment or datetime.datetime.now(datetime.UTC)).timestamp() * 1000)


def environment_tags() -> dict[str, str]:
    """Versions and the processor."""
    versions = {
        f"version.{name}": importlib.metadata.version(name)
        for name in ("torch", "timm", "optuna", "segmentation-models-pytorch")
    }
    return {"python": platform.python_version(), "processor": platform.machine(), **versions}


def tool_tags(scores: Scores) -> dict[str, str]:
    """What other tools' totals are of: unit, version, input."""
    return {f"count.{count.tool}": count.describe() for count in scores.tool_counts}


def logarithms(scores: Scores) -> dict[str, float]:
    """For MLflow's charts, whose scatter has no logarithmic axis."""
    return {f"log10_{name}": math.log10(value) for name, value in (("params", scores.params), ("macs", scores.macs))}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as text by dotted name."""
    found: dict[str, str] = {}
    for key, value in values.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


def code_version() -> dict[str, str]:
    """The commit of kdsearch's own checkout, where it runs from one."""
    commit = commit_of_checkout()
    return {"mlflow.source.git.commit": commit} if commit else {}
