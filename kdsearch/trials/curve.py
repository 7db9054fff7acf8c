"""The learning curve of one training: a report an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter


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


_CURVE = TypeAdapter(tuple[EpochReport, ...])


def dump_curve(curve: Sequence[EpochReport]) -> str:
    """As it is stored."""
    return _CURVE.dump_json(tuple(curve)).decode()


def read_curve(text: str | bytes) -> tuple[EpochReport, ...]:
    """A stored learning curve."""
    return _CURVE.validate_json(text)
