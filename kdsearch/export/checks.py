"""Checks that exported models compute the same as the trained network, by Dice and logits on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from kdsearch.data.frame import Frame
from kdsearch.data.native import NativeImage
from kdsearch.distill.batches import Images
from kdsearch.distill.loop import EVALUATION_BATCH
from kdsearch.errors import ExportError
from kdsearch.export.loading import Floats, Network
from kdsearch.export.onnx_graph import IMAGE, LOGITS, PIXELS
from kdsearch.files.onnx_runtime import session_of
from kdsearch.measure import scores
from kdsearch.measure.scores import dice_per_image, predict_classes
from kdsearch.measure.surface import Row, gather, measure_classes, predicted_classes
from kdsearch.models.contract import normalize
from kdsearch.trials.scores import NativeScores

ABSOLUTE, RELATIVE = 1e-4, 1e-5
"""Logits may differ by ``ABSOLUTE`` plus ``RELATIVE`` times the largest logit."""
DICE_TOLERANCE = 1e-4


def onnx_logits(content: bytes, images: Images, *, raw: bool = False) -> Tensor:
    """Returns the logits N×K×H×W of an ONNX model. Its input is normalized images, or raw colors if ``raw``."""
    session = session_of(content, name="the exported model")
    parts = []
    for part in torch.split(images.pixels.cpu(), EVALUATION_BATCH):
        colors = part.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()
        fed = {PIXELS: colors.numpy()} if raw else {IMAGE: normalize(part).numpy()}
        parts.append(torch.from_numpy(np.asarray(session.run([LOGITS], fed)[0])))
    return torch.cat(parts)


def mean_dice(logits: Tensor, images: Images) -> float:
    """Returns the Dice of these logits, as in ``Overlap``."""
    return scores.mean_dice(predict_classes(logits).cpu(), images.masks.cpu(), classes=len(images.classes))


def lesion_dice(logits: Tensor, images: Images) -> Tensor:
    """Returns N Dice coefficients, NaN for negative images."""
    return dice_per_image(predict_classes(logits).cpu(), images.masks.cpu())


def require_same(expected: Tensor, got: Tensor, images: Images) -> float:
    """Returns the largest difference between logits; raises ExportError if logits or Dice differ by too much."""
    difference = float((expected - got).abs().max())
    allowed = ABSOLUTE + RELATIVE * float(expected.abs().max())
    a, b = mean_dice(expected, images), mean_dice(got, images)
    if difference > allowed or not abs(a - b) < DICE_TOLERANCE:
        raise ExportError(
            f"the ONNX model does not compute the same as torch: logits differ by {difference:.2g} (allowed: "
            f"{allowed:.2g}), Dice is {b:.4f} instead of {a:.4f}; please report this with the versions of torch "
            "and onnxruntime"
        )
    return difference


def native_scores(network: Network, images: Iterable[NativeImage], ids: Sequence[str], frame: Frame) -> NativeScores:
    """Scores the images at original resolution, in the order of ``ids``; ``network`` takes pixels in ``frame``."""
    found = {image.id: native_score(network(frame.image(image.pixels)), image, frame) for image in images}
    return gather(found[name] for name in ids)


def native_score(small: Floats, image: NativeImage, frame: Frame) -> list[Row]:
    """Scores a network's logits K×H×W at the image's original resolution, with ``measure_classes``."""
    predicted = predicted_classes(frame.logits(small, (image.mask.shape[0], image.mask.shape[1])))
    return measure_classes(predicted, image.mask, tolerance_px=image.tolerance_px, classes=max(1, len(small) - 1))
