"""The shapes of a network's input and output."""

from __future__ import annotations

from dataclasses import dataclass

IGNORED = 255
"""Class number of pixels that count neither in losses nor in scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a network takes and returns for one image."""

    height: int
    width: int
    """In pixels."""
    channels: int = 1
    """Channels of the image: 1 for gray, 3 for RGB."""
    outputs: int = 1
    """Channels of the logits: 1 for one class (sigmoid), otherwise one per class, background first (softmax)."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of the input for one image, 1×C×H×W."""
        return 1, self.channels, self.height, self.width

    def pixels_at(self, stride: int) -> int:
        """Number of cells of a feature map of this stride."""
        return (self.height // stride) * (self.width // stride)

    def describe_size(self) -> str:
        """``128×96``: height and width."""
        return f"{self.height}×{self.width}"


def square(side: int, *, channels: int = 1, outputs: int = 1) -> Task:
    """The task for images of ``side``×``side``."""
    return Task(height=side, width=side, channels=channels, outputs=outputs)
