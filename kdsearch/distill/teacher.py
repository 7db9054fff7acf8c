"""Trains a teacher and computes its logits of the training images once."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from kdsearch.config.networks import AnyTeacher, TeacherConfig
from kdsearch.config.study import StudyConfig
from kdsearch.config.task import Task
from kdsearch.distill.batches import TrainingData
from kdsearch.distill.checkpoint import Checkpoint
from kdsearch.distill.loop import EVALUATION_BATCH, Fitted, reporting_memory, score, train
from kdsearch.distill.objective import Supervised
from kdsearch.distill.optimization import Slow
from kdsearch.distill.result import Kept, Trained, TrainingFailed
from kdsearch.errors import TeacherError
from kdsearch.models.contract import normalize
from kdsearch.models.encoders import read_tensors
from kdsearch.models.given_teachers import TeacherNetwork
from kdsearch.models.teacher import Teacher, build_teacher, resized
from kdsearch.trials.record import EpochReport

NOT_TRAINED = Fitted(epochs=0, best_epoch=0, seconds=0.0)
"""For a teacher that was trained elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRecipe:
    """All settings that determine a teacher for given images."""

    config: AnyTeacher
    task: Task
    """The students' task."""
    seed: int

    @property
    def own_task(self) -> Task:
        """The task with the size of the images that the teacher is trained on."""
        own = self.config.size if isinstance(self.config, TeacherConfig) else None
        return self.task if own is None else dataclasses.replace(self.task, height=own, width=own)

    @classmethod
    def of(cls, study: StudyConfig) -> TeacherRecipe:
        return cls(config=study.teacher, task=study.data.task, seed=study.seed)


def train_teacher(
    recipe: TeacherRecipe, data: TrainingData, *, checkpoint: Checkpoint | None = None, kept: Kept = "best"
) -> Generator[EpochReport, None, Trained]:
    """Trains the teacher, resuming from its checkpoint if there is one; yields one report per epoch.

    ``data`` has images of the teacher's own size. Raises TrainingFailed if training cannot continue.
    """
    config = recipe.config
    assert isinstance(config, TeacherConfig), "only teachers of kind network are trained"
    assert config.ensemble == 1, "members of an ensemble are trained one by one"
    spec = config.training
    try:
        with reporting_memory():
            teacher = build_teacher(config, recipe.own_task, seed=recipe.seed).to(data.device)
            objective = Supervised(teacher, spec.supervised_loss)
            encoder = teacher.network.encoder
            slow = Slow(part=encoder, fraction=config.encoder_lr_factor)  # type: ignore[arg-type]  # smp's contract
            fitted = yield from train(
                teacher, objective, data, spec, seed=recipe.seed, slow=slow, checkpoint=checkpoint, kept=kept
            )
            return as_trained(teacher, data, fitted, task=recipe.task)
    except TrainingFailed as error:
        raise type(error)(f"{error}; lower teacher.training.learning_rate or batch_size") from error


def as_trained(
    teacher: TeacherNetwork,
    data: TrainingData,
    fitted: Fitted = NOT_TRAINED,
    *,
    task: Task,
    params: int | None = None,
) -> Trained:
    """Collects the teacher's scores and weights, and its logits at the students' size.

    Pass ``params`` for a teacher that cannot be counted.
    """
    scores = score(teacher, data.validation, fitted, params=params)
    weights = save({name: tensor.contiguous() for name, tensor in teacher.state_dict().items()})
    teacher.to(data.device).eval()
    with torch.no_grad():
        parts = [
            resized(teacher(normalize(part)), task.size) for part in torch.split(data.train.pixels, EVALUATION_BATCH)
        ]
    return Trained(scores=scores, weights=weights, logits=torch.cat(parts).half().cpu().numpy())


def load_network(config: TeacherConfig, path: Path, task: Task) -> Teacher:
    """Loads the teacher's weights from a file; raises TeacherError if they do not match its settings."""
    teacher = build_teacher(config, task, pretrained=False)
    tensors = read_tensors(path)
    wanted = teacher.state_dict()
    behind = [name for name in tensors if name.startswith("network.encoder.") and name not in wanted]
    try:
        teacher.load_state_dict({name: tensor for name, tensor in tensors.items() if name not in behind})
    except RuntimeError as error:
        first = " ".join(str(error).splitlines()[1:2]).strip() or str(error)
        raise TeacherError(
            f"teacher: {path} does not match {config.architecture} on {config.encoder} with depth "
            f"{config.encoder_depth}: {textwrap.shorten(first, 200)}"
        ) from None
    return teacher
