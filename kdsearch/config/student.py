"""The ``student`` section: the families of networks that are searched."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kdsearch.config.ranges import Fixed, Section, Space

FamilyName = Literal["unet"]
Convolution = Literal["standard", "separable"]


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
        """``8×3, 2 standard`` in tables, with the growth where it is not 2."""
        growth = "" if self.growth == 2 else f" growth {self.growth:.3g}"
        return f"{self.width}×{self.depth}{growth}, {self.convolutions} {self.convolution}"

    def describe(self) -> str:
        """In a sentence."""
        growth = "" if self.growth == 2 else f", growth {self.growth:.3g}"
        convolutions = f"{self.convolutions} {self.convolution} convolution{'s' * (self.convolutions > 1)}"
        return f"U-Net of width {self.width}{growth} and depth {self.depth} with {convolutions} a stage"


StudentSpec: TypeAlias = UNetSpec
"""One student network, of any family."""
StudentSpace: TypeAlias = Space[UNetSpec]
"""A family's settings as they stand in a study file."""
SPECS: dict[FamilyName, type[StudentSpec]] = {"unet": UNetSpec}
"""By family."""


def spec_of(space: StudentSpace) -> type[StudentSpec]:
    """The class of the students that the section spans."""
    return SPECS[getattr(space, "family")]  # noqa: B009 - a space hides its settings' types
