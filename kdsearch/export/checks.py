"""Whether what is shipped computes what was trained: Dice and logits of each form on the same images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdsearch.data.native import NativeImage
from kdsearch.distill.arrays import Images
from kdsearch.distill.loop import EVALUATION_BATCH
from kdsearch.errors import ExportError
from kdsearch.export.loading import Network, logits_at_own_size
from kdsearch.export.onnx_graph import IMAGE, LOGITS, PIXELS
from kdsearch.export.runtime import session_of
from kdsearch.measure.scores import dice_per_image, predict_classes
from kdsearch.models.contract import normalise

ABSOLUTE, RELATIVE = 1e-4, 1e-5
"""How far logits may differ: the sum of the first and of the second times the largest logit."""
DICE_TOLERANCE = 1e-4


def onnx_logits(content: bytes, images: Images, *, raw: bool = False) -> Tensor:
    """Logits N×C×H×W of an ONNX model, fed with normalised images, or with raw colours where ``raw``."""
    session = session_of(content, name="the exported model")
    parts = []
    for grey in torch.split(images.grey.cpu(), EVALUATION_BATCH):
        fed = {PIXELS: grey[..., None].expand(-1, -1, -1, 3).numpy()} if raw else {IMAGE: normalise(grey).numpy()}
        parts.append(torch.from_numpy(np.asarray(session.run([LOGITS], fed)[0])))
    return torch.cat(parts)


def mean_dice(logits: Tensor, images: Images) -> float:
    """Mean Dice over the images with a lesion."""
    return float(lesion_dice(logits, images).nanmean())


def lesion_dice(logits: Tensor, images: Images) -> Tensor:
    """N Dice coefficients, NaN where an image holds no lesion."""
    return dice_per_image(predict_classes(logits).cpu(), (images.masks > 0).long().cpu())


def require_same(expected: Tensor, got: Tensor, images: Images) -> float:
    """The largest difference of logits; raises ExportError where it, or the Dice, says that these are two networks."""
    difference = float((expected - got).abs().max())
    allowed = ABSOLUTE + RELATIVE * float(expected.abs().max())
    a, b = mean_dice(expected, images), mean_dice(got, images)
    if difference > allowed or not abs(a - b) < DICE_TOLERANCE:
        raise ExportError(
            f"the ONNX model does not compute what torch does: logits differ by {difference:.2g} (allowed "
            f"{allowed:.2g}), Dice {b:.4f} instead of {a:.4f}; please report this with the versions of torch "
            "and onnxruntime"
        )
    return difference


def native_dice(network: Network, images: Iterable[NativeImage], *, size: int) -> dict[str, float]:
    """Dice of each image by its id, NaN where it holds no lesion; ``network`` takes grey values S×S."""
    return {image.id: _dice(logits_at_own_size(network, image.grey, size=size) > 0, image.mask > 0) for image in images}


def _dice(predicted: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_]) -> float:
    return float(dice_per_image(*(torch.from_numpy(part.astype(np.int64))[None] for part in (predicted, target)))[0])
