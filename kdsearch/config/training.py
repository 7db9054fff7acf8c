"""The ``training`` sections of students and teacher."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdsearch.config.ranges import Fixed, Section, training_rule, values_of

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "onecycle"]
SupervisedLoss = Literal["cross_entropy", "dice_cross_entropy"]
Monitor = Literal["loss", "dice"]
Precision = Literal["float32", "bf16", "fp16"]

Fraction = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]


COLOR_CHANGE = 0.2
"""Default of the changes of brightness, contrast and saturation of color images."""


def without_new(training: dict[str, Any]) -> dict[str, Any]:
    """Leaves out settings of a ``training`` section that older releases did not have, while they have their defaults.

    Digests are made of the rest, so that they do not change.
    """
    known = training["augmentation"]
    kept = {key: value for key, value in known.items() if value is not None}
    return training | {"augmentation": kept}


class AugmentationSpec(Section):
    """Strength of each augmentation; 0 switches it off. New values are drawn for each image in every epoch."""

    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest rotation in either direction, in degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Largest relative change of size in either direction."""
    shift: Fraction = 0.1
    """Largest shift in either direction, as a fraction of the image's width."""
    crop: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Largest fraction of width and height removed by a random crop."""
    noise: Fraction = 0.05
    """Largest standard deviation of Gaussian noise, on gray values from 0 to 1; student's image only."""
    dropout: Fraction = 0.05
    """Largest fraction of pixels set to black; student's image only."""
    brightness: Fraction | None = None
    """Largest relative change of brightness in either direction; student's image only. Default: 0.2 for color images,
    0 for gray ones. This is also the default of ``contrast`` and ``saturation``."""
    contrast: Fraction | None = None
    """Largest relative change of contrast in either direction; student's image only."""
    saturation: Fraction | None = None
    """Largest relative change of saturation in either direction; no effect on gray images."""


class TrainingSpec(Section):
    """How a network is trained."""

    optimizer: Optimizer = "adamw"
    """The optimizer."""
    learning_rate: _Positive = 2e-3
    """Highest learning rate of the schedule."""
    weight_decay: _NotNegative = 1e-4
    """Weight decay (L2 for Adam and SGD, decoupled for AdamW)."""
    schedule: Schedule = "onecycle"
    """How the learning rate changes over the epochs."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 30
    """Number of epochs, unless training is stopped early."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    """Images per batch."""
    supervised_loss: SupervisedLoss = "dice_cross_entropy"
    """Loss against the masks: cross-entropy as in the paper, or Dice plus cross-entropy."""
    gradient_clip: _Positive | None = None
    """Maximum norm of the gradient; larger gradients are scaled down to it."""
    ema_epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Exponential moving average of the weights over about this many epochs. Default: off."""
    patience: Fixed[Annotated[int, Field(ge=1)] | None] = None
    """Stop after this many epochs without improvement of ``monitor``; only with ``schedule: constant``."""
    monitor: Fixed[Monitor] = "dice"
    """Validation metric that decides which epoch's weights are kept."""
    precision: Fixed[Precision] = "float32"
    """Arithmetic on a GPU; a CPU always uses float32."""
    augmentation: AugmentationSpec = AugmentationSpec()
    """Augmentation of the student's images."""

    @training_rule
    def _rate_falls_before_the_end(self) -> Self:
        falling = [schedule for schedule in values_of(self.schedule) or () if schedule != "constant"]
        if self.patience is not None and falling:
            raise ValueError(
                f"patience stops training before the learning rate of schedule {falling[0]} has fallen, which lowers "
                "Dice; remove patience, or write schedule: constant"
            )
        return self


class TeacherTraining(TrainingSpec):
    """How the teacher is trained: the keys of ``training`` without ranges, and one for the pretrained encoder."""

    encoder_lr_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate of the encoder as a fraction of the decoder's. Default: 0.1, and 1 with ``weights: none``."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        ranged = [key for key, value in given.items() if isinstance(value, dict) and key != "augmentation"]
        if ranged:
            raise ValueError(f"the teacher is not searched; give {', '.join(ranged)} one value instead of a range")
        return values
