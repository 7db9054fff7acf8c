"""The ``teacher`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kdsearch.config.encoder import ENCODER, WEIGHTS, EncoderWeights, require_own_weights
from kdsearch.config.ranges import Section
from kdsearch.config.training import TeacherTraining

Architecture = Literal[
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
    "dpt",
]

PRETRAINED_RATE = 0.1
"""Of a pretrained encoder, as a fraction of the decoder's; searched for once, see ``docs/benchmarks.md``."""


class TeacherConfig(Section):
    """The network that students learn from: trained once for the data, the split and these settings, then cached."""

    architecture: Architecture = "unet"
    """Decoder, by its name in segmentation-models-pytorch; ``dpt`` needs a vision transformer as encoder."""
    encoder: str = ENCODER
    """Encoder, by its name in timm; its input is normalised as its own weights were trained."""
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = 5
    """Stages of the encoder; those behind are not built; its output is 2 to this power times smaller than the image."""
    weights: EncoderWeights = WEIGHTS
    """Encoder weights to start from: ``none``, ``timm`` (downloads), ``package:NAME`` (an installed package that
    carries a weights file) or ``file:PATH``."""
    flip: bool = False
    """Whether the trained teacher's logits are those of the mean probabilities of an image and its mirror image."""
    checkpoint: str | None = None
    """A teacher you already have, as safetensors of the whole network; it is used as it is and not trained."""
    training: TeacherTraining = TeacherTraining()
    """How the teacher is trained."""

    @property
    def encoder_rate(self) -> float:
        """The encoder's learning rate as a fraction of the rest's."""
        usual = 1.0 if self.weights == "none" else PRETRAINED_RATE
        return usual if self.training.encoder_rate is None else self.training.encoder_rate

    @model_validator(mode="after")
    def _weights_are_the_encoder_s(self) -> TeacherConfig:
        if self.checkpoint is None:
            require_own_weights(self.encoder, self.weights)
        return self

    @model_validator(mode="after")
    def _checkpoint_is_whole(self) -> TeacherConfig:
        idle = sorted({"training", "weights"} & self.model_fields_set)
        if self.checkpoint is not None and idle:
            raise ValueError(
                f"a teacher from a checkpoint is used as it is; remove either checkpoint or {', '.join(idle)}"
            )
        return self
