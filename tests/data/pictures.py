"""Writes small images and masks for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, *, shape: tuple[int, int] = (40, 50), seed: int = 0, mode: str = "L") -> Path:
    """Writes a random image of this height, width and mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = np.random.default_rng([seed, *map(ord, path.stem)]).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(gray).convert(mode).save(path)
    return path


def write_mask(
    path: Path, *, shape: tuple[int, int] = (40, 50), box: tuple[int, int, int, int] | None = (10, 10, 30, 30)
) -> Path:
    """Writes a binary mask with a box (top, left, bottom, right), or an empty one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(shape, dtype=np.uint8)
    if box:
        mask[box[0] : box[2], box[1] : box[3]] = 255
    Image.fromarray(mask).save(path)
    return path
