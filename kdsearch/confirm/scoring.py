"""Scores a fold's network at the size of the files, once."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping

import torch
from safetensors.torch import load

from kdsearch.confirm.answers import Floats, paired_rows, table_of
from kdsearch.confirm.plan import Plan
from kdsearch.confirm.store import FoldResult, ScoredImages
from kdsearch.data.dataset import Dataset, Splits
from kdsearch.data.native import NativeMask
from kdsearch.distill.batches import images_at
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.result import Trained
from kdsearch.distill.teacher_folder import TrainedTeacher
from kdsearch.measure.surface import measure_native
from kdsearch.models.students import build_student
from kdsearch.statistics.comparisons import ALPHA, compare
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.scores import Scores

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoldScorer:
    """Knows every image's lesion at the size of its file."""

    dataset: Dataset
    masks: Mapping[str, NativeMask]
    """By the image's id."""

    def student(self, recipe: Recipe, trained: Trained, fold: Splits) -> Scores:
        """The student's scores, with those at the files' size."""
        network = build_student(recipe.student, begun=False)
        network.load_state_dict(load(trained.weights))
        return self._with_native(network, trained.scores, fold)

    def teacher(self, teacher: TrainedTeacher, fold: Splits) -> Scores:
        """The teacher's scores, with those at the files' size."""
        return self._with_native(teacher.load(CPU), teacher.scores, fold)

    def _with_native(self, network: torch.nn.Module, scores: Scores, fold: Splits) -> Scores:
        with _one_thread(), torch.inference_mode():
            logits = predict_logits(network, images_at(self.dataset, fold.validation, CPU).grey)
        masks = [self.masks[self.dataset.infos[position].id] for position in fold.validation]
        return dataclasses.replace(scores, native=measure_native(logits[:, 0].numpy(), masks))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """So that sums, and with them the pixels at the threshold, are the same on every machine; workers need the rest."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


FEWEST_FOLDS = 2
"""One training of each says too little."""


def overtaken(
    plan: Plan,
    images: ScoredImages,
    results: Mapping[tuple[str, int, int], FoldResult],
    *,
    done: Collection[tuple[int, int]],
    dropped: Collection[str],
) -> dict[str, str]:
    """Members that are shown to be worse than one no larger, with the reason.

    ``done`` are the folds that every other arm has been scored in, by repetition and fold. A verdict needs folds and
    images, as in the answers; all pairs of members and all looks share the error rate of 5 % (Holm, and alpha divided
    by the number of looks).
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
                arm.id, f"{difference} points behind {other.name}, which is no larger, after {len(done)} folds"
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
    """R×N Dice; NaN in folds that are not done."""
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
