"""Scores the networks of a fold at original resolution, and finds members that are clearly worse."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import torch
from safetensors.torch import load

from kdsearch.config.task import Task
from kdsearch.confirm.answers import Floats, paired_rows, table_of
from kdsearch.confirm.plan import Plan
from kdsearch.confirm.store import FoldResult, ScoredImages
from kdsearch.data.dataset import Dataset, Splits
from kdsearch.data.frame import Frame
from kdsearch.data.native import NativeMask
from kdsearch.distill.batches import images_at
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.result import Trained
from kdsearch.distill.teacher_folder import TrainedTeacher
from kdsearch.measure.surface import measure_native
from kdsearch.measure.threads import using_threads
from kdsearch.models.students import build_student
from kdsearch.statistics.comparisons import ALPHA, compare
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.scores import Scores

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoldScorer:
    """Scores networks with masks at original resolution."""

    dataset: Dataset
    masks: Mapping[str, NativeMask]
    """By the image's id."""
    task: Task
    frame: Frame

    def student(self, recipe: Recipe, trained: Trained, fold: Splits) -> Scores:
        """Adds scores at original resolution to a student's."""
        network = build_student(recipe.student, channels=self.task.channels, outputs=self.task.outputs, begun=False)
        network.load_state_dict(load(trained.weights))
        return self._with_native(network, trained.scores, fold)

    def teacher(self, teacher: TrainedTeacher, fold: Splits) -> Scores:
        """Adds scores at original resolution to a teacher's."""
        return self._with_native(teacher.load(CPU), teacher.scores, fold)

    def _with_native(self, network: torch.nn.Module, scores: Scores, fold: Splits) -> Scores:
        # with one thread, pixels at the threshold are the same on every machine, and workers keep the other cores
        with using_threads(1), torch.inference_mode():
            logits = predict_logits(network, images_at(self.dataset, fold.validation, CPU).pixels)
        masks = [self.masks[self.dataset.infos[position].id] for position in fold.validation]
        return dataclasses.replace(scores, native=measure_native(logits.numpy(), masks, self.frame))


FEWEST_FOLDS = 2
"""One training run per member is too little to drop any."""


def overtaken(
    plan: Plan,
    images: ScoredImages,
    results: Mapping[tuple[str, int, int], FoldResult],
    *,
    done: Collection[tuple[int, int]],
    dropped: Collection[str],
) -> dict[str, str]:
    """Members that are significantly worse than one of at most their size, with the reason.

    ``done`` are the finished folds, by repetition and fold. As in the answers, a difference must be significant over
    folds and over images. All pairs of members and all looks share the error rate of 5 % (Holm, with alpha divided by
    the number of looks).
    """
    if not FEWEST_FOLDS <= len(done) < _folds(plan):
        return {}
    rows = {
        arm.id: _rows(images, results, arm.id, done)
        for arm in plan.members
        if arm.id not in dropped and all(_scored(results, arm.id, place) for place in done)
    }
    racing = [arm for arm in plan.members if arm.id in rows]
    pairs = [(arm, other) for arm in racing for other in racing if other.id != arm.id and other.params <= arm.params]
    differences = [paired_rows(images, rows[other.id] - rows[arm.id], testing=plan.testing) for arm, other in pairs]
    looks = _folds(plan) - FEWEST_FOLDS
    compared = compare(differences, images.groups, alpha=ALPHA / looks)
    found: dict[str, str] = {}
    for (arm, other), difference in zip(pairs, compared, strict=True):
        if difference.shown and difference.mean > 0:
            found.setdefault(
                arm.id, f"{difference} points behind {other.name}, which is at most as large, after {len(done)} folds"
            )
    return found


def _scored(results: Mapping[tuple[str, int, int], FoldResult], arm: str, place: tuple[int, int]) -> bool:
    found = results.get((arm, *place))
    return found is not None and found.scores is not None


def _folds(plan: Plan) -> int:
    return sum(len(repetition) for repetition in plan.partitions)


def _rows(
    images: ScoredImages,
    results: Mapping[tuple[str, int, int], FoldResult],
    arm: str,
    done: Collection[tuple[int, int]],
) -> Floats:
    """R×N Dice; NaN in unfinished folds."""
    scores = {place: found for place in done if (found := results[(arm, *place)].scores) is not None}
    return table_of(images, scores).values["dice"]


def twins_without_member(plan: Plan, dropped: Collection[str]) -> dict[str, str]:
    """Twins whose members were all dropped."""
    needed = {pair.other for pair in plan.twins if pair.arm not in dropped}
    return {
        arm.id: "its member was dropped"
        for arm in plan.arms
        if arm.role == "twin" and arm.id not in needed and arm.id not in dropped
    }
