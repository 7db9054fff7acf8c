"""Scores at the size of the files: logits are resized to each file's grid, then cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from kdsearch.data.native import NativeMask
from kdsearch.data.pixels import Singles, resize_logits
from kdsearch.measure.surface import Mask, compare_outlines
from kdsearch.trials.scores import NativeScores


def measure_native(logits: Iterable[Singles], masks: Sequence[NativeMask]) -> NativeScores:
    """Of each image's S×S logits of a lesion, against its mask."""
    return gather(_measure(one, mask) for one, mask in zip(logits, masks, strict=True))


def gather(rows: Iterable[tuple[float, float, float]]) -> NativeScores:
    """From what ``measure_lesion`` gives of each image."""
    dice, nsd, hd95 = (tuple(values) for values in zip(*rows, strict=True))
    return NativeScores(dice=dice, nsd=nsd, hd95=hd95)


def _measure(logits: Singles, mask: NativeMask) -> tuple[float, float, float]:
    resized = resize_logits(logits, height=mask.height, width=mask.width)
    return measure_lesion(resized > 0, mask.lesion, tolerance_px=mask.tolerance_px)


def measure_lesion(predicted: Mask, lesion: Mask, *, tolerance_px: float) -> tuple[float, float, float]:
    """Dice, NSD, and HD95 as a fraction of the diagonal, of masks H×W; NaN where there is no lesion."""
    if not lesion.any():
        return math.nan, math.nan, math.nan
    dice = 2 * int((predicted & lesion).sum()) / int(predicted.sum() + lesion.sum())
    outlines = compare_outlines(predicted, lesion, tolerance=tolerance_px)
    return dice, outlines.nsd, outlines.hd95 / math.hypot(*lesion.shape)
