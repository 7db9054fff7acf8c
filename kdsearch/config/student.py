"""The ``student`` section: the family of U-Nets that is searched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kdsearch.config.ranges import IntSearch, Section, WordSearch

Width = Annotated[int, Field(ge=2, le=256)]
Depth = Annotated[int, Field(ge=1, le=6)]
Convolutions = Annotated[int, Field(ge=1, le=4)]
Convolution = Literal["standard", "separable"]


class StudentSpace(Section):
    """A U-Net by its width, depth and convolutions."""

    width: IntSearch[Width] = 16
    """Channels of the first stage; every deeper stage has twice as many."""
    depth: IntSearch[Depth] = 3
    """How often the image is halved; its size must be divisible by 2 to this power."""
    convolutions: IntSearch[Convolutions] = 2
    """3×3 convolutions in each stage."""
    convolution: WordSearch[Convolution] = "standard"
    """Standard, or depth-wise separable: a 3×3 per channel and a 1×1 across."""


class StudentSpec(Section):
    """One student network, as StudentSpace describes it, with every value chosen."""

    width: Width
    depth: Depth
    convolutions: Convolutions
    convolution: Convolution
