"""Trains a teacher, or takes one that is there, and asks it once for its logits of the training images."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from kdsearch.config.networks import AnyTeacher, TeacherConfig
from kdsearch.config.study import StudyConfig
from kdsearch.distill.batches import TrainingData
from kdsearch.distill.checkpoint import Checkpoint
from kdsearch.distill.loop import EVALUATION_BATCH, Fitted, reporting_memory, score, train
from kdsearch.distill.objective import Supervised
from kdsearch.distill.optimisation import Slow
from kdsearch.distill.result import Halves, Kept, Trained, TrainingFailed
from kdsearch.errors import TeacherError
from kdsearch.models.contract import normalise
from kdsearch.models.encoders import read_tensors
from kdsearch.models.given_teachers import TeacherNetwork
from kdsearch.models.teacher import Teacher, build_teacher, resized
from kdsearch.trials.record import EpochReport

NOT_TRAINED = Fitted(epochs=0, best_epoch=0, seconds=0.0)
"""How the training of a teacher ended that was trained elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRecipe:
    """All that makes a teacher from some images."""

    config: AnyTeacher
    size: int
    """Of the students' images, in pixels a side."""
    seed: int

    @property
    def own_size(self) -> int:
        """Of the images that it is trained on."""
        own = self.config.size if isinstance(self.config, TeacherConfig) else None
        return own or self.size

    @classmethod
    def of(cls, study: StudyConfig) -> TeacherRecipe:
        """The study's teacher."""
        return cls(config=study.teacher, size=study.data.size, seed=study.seed)


def train_teacher(
    recipe: TeacherRecipe, data: TrainingData, *, checkpoint: Checkpoint | None = None, kept: Kept = "best"
) -> Generator[EpochReport, None, Trained]:
    """Trains the teacher from its checkpoint where there is one; yields one report an epoch.

    ``data`` are images of its own size. Raises TrainingFailed where the training cannot continue.
    """
    config = recipe.config
    assert isinstance(config, TeacherConfig), "others are not trained"
    assert config.ensemble == 1, "its members are trained, each by itself"
    with _with_remedy(), reporting_memory():
        teacher = build_teacher(config, size=recipe.own_size, seed=recipe.seed).to(data.device)
        spec = config.training
        objective = Supervised(teacher, spec.supervised_loss)
        slow = Slow(part=teacher.network.encoder, fraction=config.encoder_lr_factor)  # type: ignore[arg-type]  # smp's contract
        fitted = yield from train(
            teacher, objective, data, spec, seed=recipe.seed, slow=slow, checkpoint=checkpoint, kept=kept
        )
        return as_trained(teacher, data, fitted, size=recipe.size)


def as_trained(
    teacher: TeacherNetwork,
    data: TrainingData,
    fitted: Fitted = NOT_TRAINED,
    *,
    size: int,
    params: int | None = None,
) -> Trained:
    """Its scores, weights, and logits at ``size``×``size``; ``params`` of one that cannot be counted."""
    scores = score(teacher, data.validation, fitted, params=params)
    weights = save({name: tensor.contiguous() for name, tensor in teacher.state_dict().items()})
    return Trained(scores=scores, weights=weights, logits=_logits(teacher.to(data.device), data, size=size))


@contextlib.contextmanager
def _with_remedy() -> Iterator[None]:
    """Says with a training's failure what to change."""
    try:
        yield
    except TrainingFailed as error:
        raise type(error)(f"{error}; lower teacher.training.learning_rate or batch_size") from error


@torch.no_grad()
def _logits(teacher: TeacherNetwork, data: TrainingData, *, size: int) -> Halves:
    """N×C×H×W of the training images, in half precision."""
    teacher.eval()
    parts = [resized(teacher(normalise(part)), size) for part in torch.split(data.train.grey, EVALUATION_BATCH)]
    return torch.cat(parts).half().cpu().numpy()


def load_network(config: TeacherConfig, path: Path, *, size: int) -> Teacher:
    """The teacher whose weights lie in that file; raises TeacherError where they do not fit its settings."""
    teacher = build_teacher(config, size=size, pretrained=False)
    tensors = read_tensors(path)
    wanted = teacher.state_dict()
    behind = [name for name in tensors if name.startswith("network.encoder.") and name not in wanted]
    try:
        teacher.load_state_dict({name: tensor for name, tensor in tensors.items() if name not in behind})
    except RuntimeError as error:
        first = " ".join(str(error).splitlines()[1:2]).strip() or str(error)
        raise TeacherError(
            f"teacher: {path} does not fit {config.architecture} on {config.encoder} of depth {config.encoder_depth}: "
            f"{textwrap.shorten(first, 200)}"
        ) from None
    return teacher
