"""The teacher of a study: trained once, kept with its scores, and asked once for its logits."""

from __future__ import annotations

import dataclasses
import textwrap
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import yaml
from safetensors.torch import load, save_file
from torch import Tensor

from kdsearch.config.study import StudyConfig
from kdsearch.config.teacher import TeacherConfig
from kdsearch.distill.arrays import TrainingData
from kdsearch.distill.checkpoint import Checkpoint
from kdsearch.distill.loop import EVALUATION_BATCH, Fitted, reporting_memory, train
from kdsearch.distill.objective import Supervised
from kdsearch.distill.optimisation import Slow
from kdsearch.distill.report import TrainingFailed
from kdsearch.distill.scoring import score
from kdsearch.errors import TeacherError
from kdsearch.files.digests import digest, digest_file
from kdsearch.files.folders import whole_folder
from kdsearch.files.schema import Schema, unchanged
from kdsearch.files.whole import discard
from kdsearch.models.encoder_weights import read_tensors
from kdsearch.models.normalisation import normalise
from kdsearch.models.teacher import Teacher, build_teacher
from kdsearch.trials.curve import EpochReport, dump_curve, read_curve
from kdsearch.trials.scores import Scores, dump_scores, read_scores

Halves: TypeAlias = npt.NDArray[np.float16]
CHECKPOINT_EVERY_S = 30.0
FORMAT = 2
"""Counts changes to how a teacher is trained, so that an older cached one is not taken for it."""
SCHEMA = Schema(what="teacher's folder", upgrades=(unchanged,))


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherContent:
    """What students need of a teacher's folder."""

    weights: bytes
    """As safetensors."""
    logits: Halves
    """N×C×H×W of the training images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTeacher:
    """A cached teacher."""

    folder: Path
    """Holds ``teacher.safetensors``, ``teacher.yaml``, ``scores.json``, ``curve.json`` and ``logits.npy``."""
    config: TeacherConfig
    size: int
    scores: Scores
    curve: tuple[EpochReport, ...]
    content: TeacherContent | None = None
    """What its folder holds, where that may be on another machine."""

    @property
    def id(self) -> str:
        """Tells it from teachers of other settings, data or seeds."""
        return self.folder.name

    def load(self, device: torch.device) -> Teacher:
        """The network, for evaluation only: nothing in it takes gradients."""
        if self.content is None:
            teacher = _load(self.config, self.folder / "teacher.safetensors", self.size)
        else:
            teacher = build_teacher(self.config, size=self.size, pretrained=False)
            teacher.load_state_dict(load(self.content.weights))
        teacher.eval().requires_grad_(requires_grad=False)
        return teacher.to(device)

    def logits(self, device: torch.device) -> Tensor:
        """N×C×H×W of the training images in half precision; on the CPU they stay where they are kept."""
        if self.content is None:
            return torch.from_numpy(self._logits_array()).to(device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nobody writes there
            return torch.from_numpy(self.content.logits).to(device)

    def packed(self) -> TrainedTeacher:
        """The same with its files' content in memory."""
        weights = (self.folder / "teacher.safetensors").read_bytes()
        content = TeacherContent(weights=weights, logits=np.asarray(self._logits_array()))
        return dataclasses.replace(self, content=content)

    def _logits_array(self) -> Halves:
        """Memory-mapped."""
        logits: Halves = np.load(self.folder / "logits.npy", mmap_mode="c")
        return logits


def teacher_folder(study: StudyConfig, splits_fingerprint: str, home: Path) -> Path:
    """Where the teacher for this data, this split, these settings and this seed lies.

    A setting that is added later, with a default, must be left out here while it has it: the name would change, and no
    study would find its teacher.
    """
    settings = study.teacher.model_dump(mode="json")
    return home / "teachers" / digest(FORMAT, splits_fingerprint, settings, _file_state(study.teacher), study.seed)


def _is_whole(folder: Path) -> bool:
    return (folder / "scores.json").is_file()


def open_teacher(config: TeacherConfig, folder: Path, *, size: int) -> TrainedTeacher | None:
    """The cached teacher of that folder, or None where it was never finished.

    Raises KdsearchError where a newer release wrote it.
    """
    if not _is_whole(folder):
        return None
    SCHEMA.upgraded(yaml.safe_load((folder / "teacher.yaml").read_text(encoding="utf-8")))
    return TrainedTeacher(
        folder=folder,
        config=config,
        size=size,
        scores=read_scores((folder / "scores.json").read_bytes()),
        curve=read_curve((folder / "curve.json").read_bytes()),
    )


def describe_teacher(study: StudyConfig) -> str:
    """The settings that made the teacher, as YAML."""
    settings = {"size": study.data.size, "seed": study.seed, "teacher": study.teacher.model_dump(mode="json")}
    return yaml.safe_dump(SCHEMA.stamped(settings), sort_keys=False)


def train_teacher(study: StudyConfig, data: TrainingData, folder: Path) -> Generator[EpochReport, None, TrainedTeacher]:
    """Trains the teacher, or takes the one the study names; yields a report an epoch and leaves the folder whole.

    A training that was killed resumes from its last state, which lies beside the folder until it is whole.
    """
    kept = str(folder.with_name(f".{folder.name}.checkpoint"))
    curve: list[EpochReport] = []
    if study.teacher.checkpoint is not None:
        teacher = _load(study.teacher, Path(study.teacher.checkpoint).expanduser(), study.data.size).to(data.device)
        fitted = Fitted(epochs=0, best_epoch=0, seconds=0.0)
    else:
        teacher = build_teacher(study.teacher, size=study.data.size, seed=study.seed).to(data.device)
        spec = study.teacher.training
        objective = Supervised(teacher, spec.supervised_loss)
        checkpoint = Checkpoint(kept, subject=folder.name, every_s=CHECKPOINT_EVERY_S)
        slow = Slow(part=teacher.network.encoder, fraction=study.teacher.encoder_rate)  # type: ignore[arg-type]  # smp's contract
        training = train(teacher, objective, data, spec, seed=study.seed, slow=slow, checkpoint=checkpoint)
        try:
            with reporting_memory():
                fitted = yield from _recorded(training, curve)
        except TrainingFailed as error:
            raise TeacherError(
                f"the teacher could not be trained: {error}; lower teacher.training.learning_rate or batch_size"
            ) from error
    scores = score(teacher, data.validation, fitted)
    _store(teacher, folder, study=study, data=data, scores=scores, curve=tuple(curve))
    discard(kept)
    trained = open_teacher(study.teacher, folder, size=study.data.size)
    assert trained is not None
    return trained


def _recorded(
    training: Generator[EpochReport, None, Fitted], curve: list[EpochReport]
) -> Generator[EpochReport, None, Fitted]:
    while True:
        try:
            report = next(training)
        except StopIteration as stop:
            fitted: Fitted = stop.value
            return fitted
        curve.append(report)
        yield report


def _store(
    teacher: Teacher,
    folder: Path,
    *,
    study: StudyConfig,
    data: TrainingData,
    scores: Scores,
    curve: tuple[EpochReport, ...],
) -> None:
    with whole_folder(folder, replace=True) as beside:
        save_file(
            {name: tensor.contiguous() for name, tensor in teacher.state_dict().items()}, beside / "teacher.safetensors"
        )
        (beside / "teacher.yaml").write_text(describe_teacher(study), encoding="utf-8")
        (beside / "curve.json").write_text(dump_curve(curve), encoding="utf-8")
        np.save(beside / "logits.npy", _logits(teacher.to(data.device), data))
        (beside / "scores.json").write_text(dump_scores(scores), encoding="utf-8")


@torch.no_grad()
def _logits(teacher: Teacher, data: TrainingData) -> Halves:
    """N×C×H×W of the training images, in half precision."""
    teacher.eval()
    parts = [teacher(normalise(part)) for part in torch.split(data.train.grey, EVALUATION_BATCH)]
    return torch.cat(parts).half().cpu().numpy()


def _load(config: TeacherConfig, path: Path, size: int) -> Teacher:
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


def _file_state(config: TeacherConfig) -> str:
    """Stands for the content of files the settings name."""
    names = [config.checkpoint, config.weights.removeprefix("file:") if config.weights.startswith("file:") else None]
    paths = [Path(name).expanduser() for name in names if name]
    return " ".join(digest_file(path) for path in paths if path.is_file())
