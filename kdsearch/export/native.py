"""Scores at the size of the files: logits are resized to the image's grid and then cut, as whoever uses a mask does."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from kdsearch.data.native import NativeImage
from kdsearch.export.loading import Network, logits_at_own_size
from kdsearch.measure.overlap import dice_per_image


def native_dice(network: Network, images: Iterable[NativeImage], *, size: int) -> dict[str, float]:
    """Dice of each image by its id, NaN where it holds no lesion; ``network`` takes grey values S×S."""
    return {image.id: _dice(logits_at_own_size(network, image.grey, size=size) > 0, image.mask > 0) for image in images}


def _dice(predicted: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_]) -> float:
    return float(dice_per_image(*(torch.from_numpy(part.astype(np.int64))[None] for part in (predicted, target)))[0])
