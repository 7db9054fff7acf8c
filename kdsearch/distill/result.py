"""The outcome of a training run: a trained network, or the reason for its failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kdsearch.trials.scores import Scores

Kept = Literal["best", "last"]
"""Which epoch's weights are kept: the best on the validation images, or the last, which are then scored once."""

Halves: TypeAlias = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The scores and weights of a trained network."""

    scores: Scores
    weights: bytes
    """In the safetensors format."""
    logits: Halves | None = None
    """A teacher's logits N×C×H×W for the training images; None for a student."""
    onnx: bytes | None = None
    """The student as an ONNX model, if its job exports one."""


class TrainingFailed(Exception):  # noqa: N818 - it says what happened
    """The training run cannot continue; the message is stored with the trial as the reason."""


class CheckpointAway(Exception):  # noqa: N818 - it says what happened
    """A checkpoint may exist but cannot be read; training may resume when it can."""


class OutOfMemory(TrainingFailed):
    """The training run ran out of memory; it may resume later or on another machine."""
