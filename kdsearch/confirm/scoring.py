"""Scores a fold's network at the size of the files, once."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

import torch
from safetensors.torch import load

from kdsearch.data.dataset import Dataset, Splits
from kdsearch.data.native import NativeMask
from kdsearch.distill.arrays import images_at
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.result import Trained
from kdsearch.distill.teacher_folder import TrainedTeacher
from kdsearch.measure.native import measure_native
from kdsearch.models.students import build_student
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
