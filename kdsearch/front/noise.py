"""Whether two students can be told apart by the images they were scored on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of paired differences of Dice, and its confidence interval."""

    mean: float
    half_width: float
    """The interval is the mean ± this, at 95 %."""

    def __str__(self) -> str:
        """In points of Dice."""
        return f"{100 * self.mean:+.1f} ± {100 * self.half_width:.1f}"

    @property
    def within_noise(self) -> bool:
        """Whether zero lies in the interval."""
        return abs(self.mean) <= self.half_width


def paired_difference(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> Difference:
    """The difference a - b of N Dice coefficients each, of the same images; NaN where an image holds no lesion.

    Student's t for paired samples: it says how another draw of images would move the difference, not how another
    training would.
    """
    pairs = (a - b)[~(np.isnan(a) | np.isnan(b))]
    if len(pairs) < 2:
        return Difference(mean=float(pairs.mean()) if len(pairs) else 0.0, half_width=math.inf)
    error = float(pairs.std(ddof=1)) / math.sqrt(len(pairs))
    return Difference(
        mean=float(pairs.mean()), half_width=float(stats.t.ppf((1 + CONFIDENCE) / 2, len(pairs) - 1)) * error
    )
