"""Distances between the outlines of predicted and true lesions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from kdsearch.data.native import NativeMask
from kdsearch.data.pixels import Singles, resize_logits
from kdsearch.trials.scores import NativeScores

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_CORNER = math.sqrt(2) / 2
_LENGTHS = np.array(
    [0, *[_CORNER] * 2, 1, _CORNER, 1, 2 * _CORNER, *[_CORNER] * 2, 2 * _CORNER, 1, _CORNER, 1, *[_CORNER] * 2, 0]
)
"""Length of contour, in pixels, between four adjacent pixels; indexed by the sum of those inside the lesion, which
count 8 and 4 (above), 2 and 1 (below)."""
PERCENTILE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """Agreement of two outlines."""

    nsd: float
    """Normalized surface Dice: the fraction of both outlines that is within the tolerance of the other, 0-1."""
    hd95: float
    """95th percentile of the distance to the other outline, in pixels; the larger of both directions."""


def compare_outlines(predicted: Mask, target: Mask, *, tolerance: float) -> Outlines:
    """Compares the outlines of two masks H×W, ``target`` not empty; ``tolerance`` is in pixels.

    For an empty prediction, NSD is 0 and HD95 is the image's diagonal. Outlines are contour elements
    weighted by their length (Nikolov et al. 2021, as in DeepMind's surface-distance).
    """
    if not predicted.any():
        return Outlines(nsd=0.0, hd95=math.hypot(*target.shape))
    rows, columns = (np.flatnonzero((predicted | target).any(axis=axis)) for axis in (1, 0))
    cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    a, b = _contour(predicted[cut]), _contour(target[cut])
    to_b, length_a = _to(b)[a > 0], a[a > 0]
    to_a, length_b = _to(a)[b > 0], b[b > 0]
    within = length_a[to_b <= tolerance].sum() + length_b[to_a <= tolerance].sum()
    return Outlines(
        nsd=float(within / (length_a.sum() + length_b.sum())),
        hd95=max(_percentile(to_b, length_a), _percentile(to_a, length_b)),
    )


def _contour(mask: Mask) -> Floats:
    """Computes the length of contour at each corner between pixels, (H+1)×(W+1)."""
    padded = np.pad(mask, 1).astype(np.uint8)
    code = 8 * padded[:-1, :-1] + 4 * padded[:-1, 1:] + 2 * padded[1:, :-1] + padded[1:, 1:]
    return np.asarray(_LENGTHS[code])


def _to(contour: Floats) -> Floats:
    """Computes the distance of each corner to the contour, in pixels."""
    return np.asarray(distance_transform_edt(contour == 0))


def _percentile(distances: Floats, lengths: Floats) -> float:
    order = np.argsort(distances, kind="stable")
    reached = np.cumsum(lengths[order]) / lengths.sum()
    place = min(int(np.searchsorted(reached, PERCENTILE)), len(order) - 1)
    return float(distances[order][place])


def measure_native(logits: Iterable[Singles], masks: Sequence[NativeMask]) -> NativeScores:
    """Scores each image's S×S logits against its mask at the original resolution."""
    resized = (
        resize_logits(one, height=mask.height, width=mask.width) for one, mask in zip(logits, masks, strict=True)
    )
    return gather(
        measure_lesion(one > 0, mask.lesion, tolerance_px=mask.tolerance_px)
        for one, mask in zip(resized, masks, strict=True)
    )


def gather(rows: Iterable[tuple[float, float, float]]) -> NativeScores:
    """Collects the results of ``measure_lesion`` for each image."""
    dice, nsd, hd95 = (tuple(values) for values in zip(*rows, strict=True))
    return NativeScores(dice=dice, nsd=nsd, hd95=hd95)


def measure_lesion(predicted: Mask, lesion: Mask, *, tolerance_px: float) -> tuple[float, float, float]:
    """Returns Dice, NSD, and HD95 as a fraction of the diagonal, of masks H×W; NaN for a negative image."""
    if not lesion.any():
        return math.nan, math.nan, math.nan
    dice = 2 * int((predicted & lesion).sum()) / int(predicted.sum() + lesion.sum())
    outlines = compare_outlines(predicted, lesion, tolerance=tolerance_px)
    return dice, outlines.nsd, outlines.hd95 / math.hypot(*lesion.shape)
