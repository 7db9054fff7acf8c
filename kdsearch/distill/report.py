"""What a training tells the outside: one report an epoch, a result at the end, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

from kdsearch.measure.scores import Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """One epoch of one network."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="constants")

    epoch: int
    """From 1."""
    epochs: int
    """Most epochs there can be."""
    train_loss: float
    validation_loss: float
    dice: float
    """Mean over validation images with a lesion, 0-1."""
    learning_rate: float
    seconds: float
    """Since training began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained network: its scores and its weights."""

    scores: Scores
    weights: bytes
    """In safetensors' format."""


class TrainingFailed(Exception):  # noqa: N818 - it says what happened
    """A training that cannot go on; the message is the reason that is recorded with the trial."""


class OutOfMemory(TrainingFailed):
    """A training for which there was no room; it may go on where, or when, there is more."""


CURVE = TypeAdapter(tuple[EpochReport, ...])
