"""Images that a network learns in a few epochs."""

from __future__ import annotations

import torch

from kdsearch.distill.batches import Images, TrainingData


def _images(count: int, seed: int) -> Images:
    """Dark discs on a bright ground, easy to learn."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    centers = torch.randint(8, 24, (count, 2), generator=generator)
    masks = torch.stack([(rows - y) ** 2 + (columns - x) ** 2 < 36 for y, x in centers])
    gray = 180 - 120 * masks.float() + 15 * torch.randn(count, 32, 32, generator=generator)
    return Images(
        pixels=gray.clamp(0, 255).to(torch.uint8)[:, None], masks=masks.to(torch.uint8), sources=("s",) * count
    )


DATA = TrainingData(train=_images(32, 0), validation=_images(16, 1))
