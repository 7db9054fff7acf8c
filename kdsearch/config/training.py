"""The ``training`` sections: one loop's settings, for the teacher and for students."""

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


class AugmentationSpec(Section):
    """The strong view's ranges; each image draws its own values every epoch. Zero switches one off."""

    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest rotation to either side, in degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Largest relative change of size to either side."""
    shift: Fraction = 0.1
    """Largest shift to either side, as a fraction of the image's width."""
    crop: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Largest fraction of width and height cut away by a random crop."""
    noise: Fraction = 0.05
    """Largest standard deviation of Gaussian noise, on grey values from 0 to 1; student's view only."""
    dropout: Fraction = 0.05
    """Largest fraction of pixels set to black; student's view only."""


class TrainingSpec(Section):
    """How a network is trained."""

    optimizer: Optimizer = "adamw"
    """The optimiser."""
    learning_rate: _Positive = 2e-3
    """Highest learning rate of the schedule."""
    weight_decay: _NotNegative = 1e-4
    """Weight decay (L2 for Adam and SGD, decoupled for AdamW)."""
    schedule: Schedule = "onecycle"
    """How the learning rate moves over the epochs."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 30
    """Most epochs a network is trained for."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    """Images in a batch."""
    supervised_loss: SupervisedLoss = "dice_cross_entropy"
    """Loss against the masks: cross-entropy as in the paper, or Dice plus cross-entropy."""
    gradient_clip: _Positive | None = None
    """Largest norm of the gradient; larger ones are scaled down to it."""
    ema_epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Over about how many of the last epochs weights are averaged, exponentially; not at all unless given."""
    patience: Fixed[Annotated[int, Field(ge=1)] | None] = None
    """Epochs without a better ``monitor`` after which training ends early; with ``schedule: constant`` alone."""
    monitor: Fixed[Monitor] = "dice"
    """Which validation figure says that an epoch is better; the best epoch's weights are kept."""
    precision: Fixed[Precision] = "float32"
    """Arithmetic on a GPU; the CPU always computes in float32."""
    augmentation: AugmentationSpec = AugmentationSpec()
    """The strong view."""

    @training_rule
    def _rate_falls_before_the_end(self) -> Self:
        falling = [schedule for schedule in values_of(self.schedule) or () if schedule != "constant"]
        if self.patience is not None and falling:
            raise ValueError(
                f"patience ends trainings before the rate of schedule {falling[0]} has fallen, which costs them Dice; "
                "remove patience, or write schedule: constant"
            )
        return self


class TeacherTraining(TrainingSpec):
    """The teacher's training; the same settings, without search ranges, and one for the pretrained encoder."""

    encoder_lr_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    """The encoder's learning rate as a fraction of the rest's; a tenth unless given, and the whole with
    ``weights: none``."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        ranged = [key for key, value in given.items() if isinstance(value, dict) and key != "augmentation"]
        if ranged:
            raise ValueError(f"the teacher is not searched; give {', '.join(ranged)} one value instead of a range")
        return values
