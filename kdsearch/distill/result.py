"""How a training ends: with a trained network, or with why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kdsearch.trials.scores import Scores

Kept = Literal["best", "last"]
"""Which epoch's weights a training leaves: the best by the validation images, or the last, which then score once."""

Halves: TypeAlias = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained network: its scores and its weights."""

    scores: Scores
    weights: bytes
    """In safetensors' format."""
    logits: Halves | None = None
    """N×C×H×W of the training images, of a teacher; None for a student."""
    onnx: bytes | None = None
    """The student as an ONNX model, if its job exports it."""


class TrainingFailed(Exception):  # noqa: N818 - it says what happened
    """A training that cannot continue; the message is the reason that is recorded with the trial."""


class CheckpointAway(Exception):  # noqa: N818 - it says what happened
    """A checkpoint that may be there and cannot be read; the training may resume when it can."""


class OutOfMemory(TrainingFailed):
    """A training for which there was no room; it may resume where, or when, there is more."""
