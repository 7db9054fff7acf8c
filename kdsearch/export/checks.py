"""Whether what is shipped computes what was trained: Dice and logits of each form on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from kdsearch.data.native import NativeImage
from kdsearch.data.pixels import resize_image
from kdsearch.distill.batches import Images
from kdsearch.distill.loop import EVALUATION_BATCH
from kdsearch.errors import ExportError
from kdsearch.export.loading import Floats, Network, at_own_size
from kdsearch.export.onnx_graph import IMAGE, LOGITS, PIXELS
from kdsearch.files.onnx_runtime import session_of
from kdsearch.measure.scores import dice_per_image, predict_classes
from kdsearch.measure.surface import gather, measure_lesion
from kdsearch.models.contract import normalise
from kdsearch.trials.scores import NativeScores

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


def native_scores(network: Network, images: Iterable[NativeImage], ids: Sequence[str], *, size: int) -> NativeScores:
    """Scores of the images at the size of their files, in the order of ``ids``; ``network`` takes grey values S×S."""
    found = {image.id: native_score(network(resize_image(image.grey, size)), image) for image in images}
    return gather(found[name] for name in ids)


def native_score(small: Floats, image: NativeImage) -> tuple[float, float, float]:
    """What ``measure_lesion`` gives of a network's logits C×S×S at the size of the image's file."""
    predicted = at_own_size(small, image.grey) > 0
    return measure_lesion(predicted, image.mask > 0, tolerance_px=image.tolerance_px)
