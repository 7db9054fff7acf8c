"""Scores a trained network on the validation images."""

from __future__ import annotations

from torch import nn

from kdsearch.distill.arrays import Images
from kdsearch.distill.loop import Fitted, predict_logits
from kdsearch.measure.counts import count, count_by_tools
from kdsearch.measure.overlap import predict_classes
from kdsearch.measure.scores import assemble
from kdsearch.trials.scores import Scores


def score(network: nn.Module, images: Images, fitted: Fitted) -> Scores:
    """Overlap on the images, and what the network costs; leaves the network on the CPU, where tools count it."""
    predicted = predict_classes(predict_logits(network, images)).cpu()
    network.cpu()
    cost = count(network, size=images.size)
    return assemble(
        predicted=predicted,
        target=(images.masks > 0).long().cpu(),
        sources=images.sources,
        cost=cost,
        tool_counts=count_by_tools(network, size=images.size, cost=cost),
        train_seconds=fitted.seconds,
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
    )
