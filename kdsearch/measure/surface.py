"""Distances between the outlines of predicted and true lesions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from kdsearch.config.task import IGNORED
from kdsearch.data.frame import Frame
from kdsearch.data.native import NativeMask
from kdsearch.data.pixels import Pixels, Singles
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


def measure_native(logits: Iterable[Singles], masks: Sequence[NativeMask], frame: Frame) -> NativeScores:
    """Scores each image's logits K×H×W, in ``frame``, against its mask at the original resolution."""
    return gather(
        measure_classes(
            predicted_classes(frame.logits(one, (mask.height, mask.width))),
            mask.classes,
            tolerance_px=mask.tolerance_px,
            classes=max(1, len(one) - 1),
        )
        for one, mask in zip(logits, masks, strict=True)
    )


def predicted_classes(logits: Singles) -> Pixels:
    """Returns class numbers H×W of logits K×H×W, as ``predict_classes`` does."""
    if len(logits) == 1:
        logits = np.stack([np.zeros_like(logits[0]), logits[0]])
    classes: Pixels = logits.argmax(axis=0).astype(np.uint8)
    return classes


Row: TypeAlias = tuple[float, float, float]
"""Dice, NSD, and HD95 as a fraction of the diagonal."""


def gather(images: Iterable[Sequence[Row]]) -> NativeScores:
    """Collects the results of ``measure_classes``; with several classes, an image's scores are the mean over them."""
    table = np.array([list(rows) for rows in images], dtype=np.float64)
    known = ~np.isnan(table[..., 0])
    counts = known.sum(axis=1)
    sums = np.where(known[..., None], table, 0).sum(axis=1)
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)
    dice, nsd, hd95 = (tuple(column) for column in means.T.tolist())
    several = table.shape[1] > 1
    by_class = tuple(tuple(column) for column in table[..., 0].T.tolist()) if several else ()
    return NativeScores(dice=dice, nsd=nsd, hd95=hd95, by_class=by_class)


def measure_classes(predicted: Pixels, mask: Pixels, *, tolerance_px: float, classes: int) -> list[Row]:
    """Measures each class of class numbers H×W; NaN for a class in neither of them, and in negative images.

    A class in only one of them has Dice and NSD of 0 and HD95 of 1. Ignored pixels do not count.
    """
    counts = mask != IGNORED
    if not (mask[counts] > 0).any():
        return [(math.nan, math.nan, math.nan)] * classes
    rows = []
    for number in range(1, classes + 1):
        a, b = (predicted == number) & counts, (mask == number) & counts
        rows.append((0.0, 0.0, 1.0) if a.any() and not b.any() else measure_lesion(a, b, tolerance_px=tolerance_px))
    return rows


def measure_lesion(predicted: Mask, lesion: Mask, *, tolerance_px: float) -> tuple[float, float, float]:
    """Returns Dice, NSD, and HD95 as a fraction of the diagonal, of masks H×W; NaN for a negative image."""
    if not lesion.any():
        return math.nan, math.nan, math.nan
    dice = 2 * int((predicted & lesion).sum()) / int(predicted.sum() + lesion.sum())
    outlines = compare_outlines(predicted, lesion, tolerance=tolerance_px)
    return dice, outlines.nsd, outlines.hd95 / math.hypot(*lesion.shape)
