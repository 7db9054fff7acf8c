"""Chooses a student within a budget, by a rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kdsearch.config.quantity import format_quantity
from kdsearch.errors import KdsearchError
from kdsearch.trials.record import Student

RuleName = Literal["best", "smallest-within", "knee"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A student and what was measured of it for this choice."""

    student: Student
    file_bytes: int | None = None
    """Of its ONNX file; None where nobody asked."""
    latency_ms: float | None = None
    """Of one image with ONNX Runtime on one thread, here; None where nobody asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a student may cost and must reach."""

    params: int | None = None
    """Most parameters."""
    macs: int | None = None
    """Most multiply-adds for one image."""
    latency_ms: float | None = None
    """Most milliseconds for one image."""
    file_bytes: int | None = None
    """Largest ONNX file."""
    min_dice: float | None = None
    """Least Dice, 0-1."""
    min_specificity: float | None = None
    """Least share of images without a lesion in which nothing is marked, 0-1."""

    def __post_init__(self) -> None:
        """Raises KdsearchError for a limit that makes no sense."""
        for name in ("params", "macs", "latency_ms", "file_bytes"):
            if (most := getattr(self, name)) is not None and not 0 < most < math.inf:
                raise KdsearchError(f"budget: {name} must be above zero, got {most}")
        for name in ("min_dice", "min_specificity"):
            if (least := getattr(self, name)) is not None and not 0 <= least <= 1:
                raise KdsearchError(f"budget: {name} must lie between 0 and 1, got {least}")

    @property
    def needs_measuring(self) -> bool:
        """Whether a candidate must have been exported and timed."""
        return self.latency_ms is not None or self.file_bytes is not None

    def excess(self, candidate: Candidate) -> float:
        """How far outside the budget it is, as the largest relative excess; zero within."""
        scores = candidate.student.scores
        pairs = (
            (scores.params, self.params),
            (scores.macs, self.macs),
            (candidate.latency_ms, self.latency_ms),
            (candidate.file_bytes, self.file_bytes),
        )
        over = [value / limit - 1 for value, limit in pairs if limit is not None and value is not None]
        if self.min_dice is not None:
            over.append((self.min_dice - scores.dice) / max(self.min_dice, 1e-9))
        if self.min_specificity is not None:
            share = scores.overlap.specificity
            over.append((self.min_specificity - (0.0 if share is None else share)) / max(self.min_specificity, 1e-9))
        return max(0.0, *over) if over else 0.0

    def without_measures(self) -> Budget:
        """What can be decided before anything is exported."""
        return Budget(params=self.params, macs=self.macs, min_dice=self.min_dice, min_specificity=self.min_specificity)

    def __str__(self) -> str:
        parts = [f"params ≤ {self.params:,}" if self.params is not None else ""]
        parts.append(f"macs ≤ {self.macs:,}" if self.macs is not None else "")
        parts.append(f"latency ≤ {self.latency_ms:g} ms" if self.latency_ms is not None else "")
        parts.append(f"file ≤ {format_quantity(self.file_bytes)}B" if self.file_bytes is not None else "")
        parts.append(f"dice ≥ {self.min_dice:g}" if self.min_dice is not None else "")
        parts.append(f"specificity ≥ {self.min_specificity:g}" if self.min_specificity is not None else "")
        return ", ".join(part for part in parts if part) or "no budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which of the students within a budget is taken."""

    name: RuleName = "best"
    tolerance: float = 0.0
    """Of ``smallest-within``: how much Dice may be given up for size, 0-1."""

    def __post_init__(self) -> None:
        """Raises KdsearchError for a tolerance that makes no sense."""
        if not 0 <= self.tolerance <= 1:
            raise KdsearchError(f"rule: the Dice given up for size must lie between 0 and 1, got {self.tolerance}")

    def rank(self, within: Sequence[Candidate]) -> list[Candidate]:
        """The candidates, the one to take first; those the rule does not consider are left out."""
        match self.name:
            case "best":
                return sorted(within, key=_by_dice)
            case "smallest-within":
                floor = max((entry.student.scores.dice for entry in within), default=0.0) - self.tolerance
                return sorted((entry for entry in within if entry.student.scores.dice >= floor), key=_by_size)
            case "knee":
                return _by_knee(within)

    def explain(self, ranked: Sequence[Candidate], *, count: int, budget: Budget) -> str:
        """Why the first of ``rank``'s was taken, in one sentence; ``count`` is how many are within the budget."""
        chosen = ranked[0]
        among = f"{count} students" if str(budget) == "no budget" else f"{count} students within {budget}"
        scores = chosen.student.scores
        match self.name:
            case "best":
                return f"Trial {chosen.student.number} has the best validation Dice of {among}: {scores.headline()}."
            case "smallest-within":
                points = 100 * self.tolerance
                return (
                    f"Trial {chosen.student.number} is the smallest of the {len(ranked)}, among {among}, whose "
                    f"validation Dice is within {points:g} point{'s' * (points != 1)} of the best: {scores.headline()}."
                )
            case "knee":
                return (
                    f"Trial {chosen.student.number} is the knee of {among}, beyond which parameters buy the least "
                    f"Dice: {scores.headline()}."
                )


def nearest_to(candidates: Sequence[Candidate], budget: Budget) -> Candidate | None:
    """The candidate that misses the budget by least; None where there are none."""
    return min(candidates, key=lambda entry: (budget.excess(entry), -entry.student.scores.dice), default=None)


def _by_dice(candidate: Candidate) -> tuple[float, int, int, int]:
    scores = candidate.student.scores
    return (-scores.dice, scores.params, scores.macs, candidate.student.number)


def _by_size(candidate: Candidate) -> tuple[int, int, float, int]:
    scores = candidate.student.scores
    return (scores.params, scores.macs, -scores.dice, candidate.student.number)


def _by_knee(within: Sequence[Candidate]) -> list[Candidate]:
    """By height over the chord from the smallest to the best student, of Dice against the logarithm of parameters.

    Satopaa et al. 2011, on the steps of the front: students that a smaller one beats are left out.
    """
    steps: list[Candidate] = []
    for entry in sorted(within, key=lambda entry: (entry.student.scores.params, *_by_dice(entry))):
        if not steps or entry.student.scores.dice > steps[-1].student.scores.dice:
            steps.append(entry)
    if len(steps) < 3:
        return sorted(steps, key=_by_dice)
    sizes = [math.log10(entry.student.scores.params) for entry in steps]
    dice = [entry.student.scores.dice for entry in steps]
    heights = {
        id(entry): (score - dice[0]) / (dice[-1] - dice[0]) - (size - sizes[0]) / (sizes[-1] - sizes[0])
        for entry, size, score in zip(steps, sizes, dice, strict=True)
    }
    return sorted(steps, key=lambda entry: (-heights[id(entry)], *_by_dice(entry)))
