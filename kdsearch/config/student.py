"""The ``student`` section: the families of networks that are searched."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag

from kdsearch.config.encoder import ENCODER, WEIGHTS, EncoderWeights, require_own_weights
from kdsearch.config.ranges import Fixed, Section, Space, tag_of, training_rule

FamilyName = Literal["unet", "timm"]
Convolution = Literal["standard", "separable"]
_SHORT: dict[Convolution, str] = {"standard": "{} std", "separable": "{} sep"}


class UNetSpec(Section):
    """A U-Net by its width, growth, depth and convolutions."""

    family: Fixed[Literal["unet"]] = "unet"
    """The kind of network."""
    width: Annotated[int, Field(ge=2, le=256)] = 16
    """Channels of the first stage."""
    growth: Annotated[float, Field(ge=1, le=2)] = 2.0
    """How many times as many channels each deeper stage has; below 2, deep stages take less of the parameters."""
    depth: Annotated[int, Field(ge=1, le=6)] = 3
    """How often the image is halved; its size must be divisible by 2 to this power."""
    convolutions: Annotated[int, Field(ge=1, le=4)] = 2
    """3×3 convolutions in each stage."""
    convolution: Convolution = "standard"
    """Standard, or depth-wise separable: a 3×3 per channel and a 1×1 across."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each stage's maps, the finest first, the encoder's output last."""
        return tuple(int(self.width * self.growth**stage + 0.5) for stage in range(self.depth + 1))

    @property
    def stride(self) -> int:
        """By which height and width of an image must be divisible."""
        return int(2**self.depth)

    def summary(self) -> str:
        """``8×3×1.5, 2 sep`` in tables: width, depth, growth where it is not 2, convolutions a stage."""
        growth = "" if self.growth == 2 else f"×{self.growth:.3g}"
        return f"{self.width}×{self.depth}{growth}, {_SHORT[self.convolution].format(self.convolutions)}"

    def describe(self) -> str:
        """In a sentence."""
        growth = "" if self.growth == 2 else f", growth {self.growth:.3g}"
        return f"U-Net of width {self.width}{growth} and depth {self.depth} with {_stage(self)}"


class TimmSpec(Section):
    """An encoder of timm, cut after one of its stages, with the decoder of a U-Net."""

    family: Fixed[Literal["timm"]]
    """The kind of network."""
    encoder: str = ENCODER
    """Encoder, by its name in timm; one that gives a map for each of its stages."""
    weights: Fixed[EncoderWeights] = WEIGHTS
    """Encoder weights to start from: ``none``, ``timm`` (downloads), ``package:NAME`` or ``file:PATH``."""
    depth: Annotated[int, Field(ge=1, le=5)] = 3
    """How often the image is halved; what the encoder has behind that is not built."""
    width: Annotated[int, Field(ge=2, le=256)] = 16
    """Channels of the decoder's maps."""
    convolutions: Annotated[int, Field(ge=1, le=4)] = 1
    """3×3 convolutions in each stage of the decoder."""
    convolution: Convolution = "separable"
    """Of the decoder: standard, or depth-wise separable: a 3×3 per channel and a 1×1 across."""
    encoder_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The encoder's learning rate as a fraction of the decoder's."""

    @property
    def stride(self) -> int:
        """By which height and width of an image must be divisible."""
        return int(2**self.depth)

    def summary(self) -> str:
        """``tf_efficientnet_lite0 /8, 16, 1 sep`` in tables: encoder, stride at which it is cut, and decoder."""
        decoder = _SHORT[self.convolution].format(self.convolutions)
        return f"{self.encoder} /{self.stride}, {self.width}, {decoder}"

    def describe(self) -> str:
        """In a sentence."""
        return f"{self.encoder} cut at stride {self.stride} under a decoder of width {self.width} with {_stage(self)}"

    @training_rule
    def _weights_are_the_encoder_s(self) -> Self:
        require_own_weights(self.encoder, self.weights)
        return self


def _stage(spec: UNetSpec | TimmSpec) -> str:
    return f"{spec.convolutions} {spec.convolution} convolution{'s' * (spec.convolutions > 1)} a stage"


StudentSpec: TypeAlias = UNetSpec | TimmSpec
"""One student network, of any family."""
SPECS: dict[FamilyName, type[StudentSpec]] = {"unet": UNetSpec, "timm": TimmSpec}
"""By family."""
SUMMARIES: dict[FamilyName, str] = {
    "unet": "student: width×depth×growth, where that is not 2, and how many convolutions a stage",
    "timm": "student: encoder /stride at which it is cut, the decoder's width, and how many convolutions a stage",
}
"""What tables say of a family's summaries."""
USUAL_FAMILY: FamilyName = "unet"


def family_of(value: object) -> str:
    """Which family a student's settings are of; what no family has, where they name none that there is."""
    return tag_of(value, "family", usual=USUAL_FAMILY)


OneStudent: TypeAlias = Annotated[
    Annotated[UNetSpec, Tag("unet")] | Annotated[TimmSpec, Tag("timm")], Discriminator(family_of)
]
"""A student's settings as they are stored."""
StudentSpace: TypeAlias = Annotated[
    Annotated[Space[UNetSpec], Tag("unet")] | Annotated[Space[TimmSpec], Tag("timm")], Discriminator(family_of)
]
"""A family's settings as they stand in a study file."""


def spec_of(space: Section) -> type[StudentSpec]:
    """The class of the students that the section spans."""
    return SPECS[getattr(space, "family")]  # noqa: B009 - a space hides its settings' types
