"""Bootstrap over groups of images: what is drawn, and what is left out of each draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""At which intervals hold."""
DRAWS = 2000
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """Mean Dice of M students on B draws of groups with replacement, and on the groups that a draw left out."""

    drawn: Floats
    """M×B."""
    left_out: Floats
    """M×B; draws that left nothing out are not among the B."""
    apparent: Floats
    """M: on all images."""


def resample(rows: Floats, groups: Sequence[str], *, draws: int = DRAWS, seed: int = SEED) -> Resampled | None:
    """Of M×N Dice coefficients on the same images, NaN where there is no lesion, and the images' N groups.

    None where fewer than two groups hold a lesion: nothing is known of other images then.
    """
    sums, sizes = sums_by_group(rows, groups)
    if sizes.size < 2:
        return None
    weights = draw_weights(sizes.size, draws=draws, seed=seed)
    left = (weights == 0).astype(np.float64)
    weights, left = (part[:, (sizes @ left) > 0] for part in (weights, left))
    return Resampled(
        drawn=(sums @ weights) / (sizes @ weights),
        left_out=(sums @ left) / (sizes @ left),
        apparent=sums.sum(axis=1) / sizes.sum(),
    )


def sums_by_group(rows: Floats, groups: Sequence[str]) -> tuple[Floats, Floats]:
    """M×G sums over each group's images with a lesion, and G counts of those."""
    lesion = ~np.isnan(rows).any(axis=0)
    _, places = np.unique(np.asarray(groups)[lesion], return_inverse=True)
    members = np.eye(places.max(initial=-1) + 1)[places]
    return rows[:, lesion] @ members, members.sum(axis=0)


def draw_weights(groups: int, *, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """G×B: how often each draw takes each group."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).T.astype(np.float64)
