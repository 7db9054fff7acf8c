"""How much faster a training is if the teacher's feature maps are cached: docs/results/speed.md.

    python tests/benchmarks/kept_maps.py

One thread, the teacher of ``studies/pareto.yaml`` with random weights, order A B A B. In each round a new trainer first
trains for an epoch with another seed, and then trains the same settings twice.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from kdsearch.config.distillation import DistillationSpec, MseTerm
from kdsearch.config.networks import TeacherConfig, UNetSpec
from kdsearch.config.task import square
from kdsearch.config.training import TrainingSpec
from kdsearch.distill.batches import Images, TrainingData
from kdsearch.distill.student import Trainer
from kdsearch.models.costs import cost_of
from kdsearch.models.given_teachers import TeacherNetwork
from kdsearch.models.teacher import build_teacher
from kdsearch.trials.recipe import Recipe

SPECS = (
    UNetSpec(width=4, depth=2, convs_per_stage=1, conv="separable"),
    UNetSpec(width=12, growth=1, depth=4, conv="separable"),
    UNetSpec(width=16, growth=1, depth=4),
    UNetSpec(width=16, depth=3),
)
IMAGES, ROUNDS = 96, 3


@dataclass(frozen=True, slots=True)
class Untrained:
    """A teacher at hand that knows nothing and takes as long as one that does."""

    network: TeacherNetwork

    def load(self, device: torch.device) -> TeacherNetwork:
        """It."""
        return self.network.to(device)

    def logits(self, device: torch.device) -> Tensor:
        """Nothing here compares logits."""
        raise AssertionError(device)

    def left_out(self, device: torch.device) -> Tensor | None:  # noqa: ARG002 - the contract's name
        """It has no members."""
        return None


def main() -> None:
    """Prints medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TeacherConfig(encoder="tf_efficientnet_lite0", encoder_depth=4, weights="none")
    teacher = Untrained(build_teacher(config, square(options.size)).eval().requires_grad_(requires_grad=False))
    data = _data(options.size)
    print(f"torch {torch.__version__}, {options.size}×{options.size}, {options.epochs} epochs of {IMAGES} images")
    print("| student | params | asked, s | kept, s | ratio |\n|---|---|---|---|---|")
    for spec in SPECS:
        recipe = Recipe(
            student=spec,
            distillation=DistillationSpec(terms=(MseTerm(path="attention", loss="mse", weight=1.0),), loss_mix="add"),
            training=TrainingSpec(epochs=options.epochs),
            seed=0,
        )
        asked, kept = zip(*(_twice(Trainer(data, teacher), recipe) for _ in range(ROUNDS)), strict=True)
        ratios = [a / b for a, b in zip(asked, kept, strict=True)]
        params = f"{cost_of(spec, square(options.size)).params:,}"
        cells = f"{statistics.median(asked):.1f} | {statistics.median(kept):.1f}"
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {spec.summary()} | {params} | {cells} | {shown} |", flush=True)


def _twice(trainer: Trainer, recipe: Recipe) -> tuple[float, float]:
    first = recipe.model_copy(update={"seed": 1, "training": recipe.training.model_copy(update={"epochs": 1})})
    _seconds(trainer, first)  # measures the teacher's maps, once for a trainer
    return _seconds(trainer, recipe), _seconds(trainer, recipe)


def _seconds(trainer: Trainer, recipe: Recipe) -> float:
    began = time.perf_counter()
    for _ in trainer.distil(recipe):
        pass
    return time.perf_counter() - began


def _data(size: int) -> TrainingData:
    gray = torch.randint(0, 255, (IMAGES, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    masks = (gray > 200).to(torch.uint8) * 255
    images = Images(pixels=gray[:, None], masks=masks, sources=("s",) * IMAGES)
    return TrainingData(train=images, validation=Images(pixels=gray[:16, None], masks=masks[:16], sources=("s",) * 16))


if __name__ == "__main__":
    main()
