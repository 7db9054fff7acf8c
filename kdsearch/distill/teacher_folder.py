"""Teachers that are trained: their folders, and what students ask of them."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load
from torch import Tensor

from kdsearch.config.teacher import TeacherConfig
from kdsearch.distill.result import Halves, Kept, Trained
from kdsearch.distill.teacher import TeacherRecipe, load_network
from kdsearch.files.digests import digest, digest_file
from kdsearch.files.schema import Schema, unchanged
from kdsearch.files.whole import whole_folder
from kdsearch.models.teacher import Teacher, build_teacher
from kdsearch.trials.record import EpochReport, dump_curve, read_curve
from kdsearch.trials.scores import Scores, dump_scores, read_scores

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
    recipe: TeacherRecipe
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
            path = self.folder / "teacher.safetensors"
            teacher = load_network(self.recipe.config, path, size=self.recipe.size)
        else:
            teacher = build_teacher(self.recipe.config, size=self.recipe.size, pretrained=False)
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


def teacher_folder(recipe: TeacherRecipe, splits_fingerprint: str, home: Path, *, kept: Kept = "best") -> Path:
    """Where the teacher of that recipe for that split of the images lies, with its best or its last weights.

    A setting that is added later, with a default, must be left out here while it has it: the name would change, and no
    study would find its teacher.
    """
    settings = recipe.config.model_dump(mode="json")
    if recipe.config.training.averaged_epochs is None:
        del settings["training"]["averaged_epochs"]
    if not recipe.config.flip:
        del settings["flip"]
    last = ("last",) if kept == "last" else ()
    name = digest(FORMAT, splits_fingerprint, settings, _file_state(recipe.config), recipe.seed, *last)
    return home / "teachers" / name


def _is_whole(folder: Path) -> bool:
    return (folder / "scores.json").is_file()


def open_teacher(recipe: TeacherRecipe, folder: Path) -> TrainedTeacher | None:
    """The cached teacher of that folder, or None where it was never finished.

    Raises KdsearchError where a newer release wrote it.
    """
    if not _is_whole(folder):
        return None
    SCHEMA.upgraded(yaml.safe_load((folder / "teacher.yaml").read_text(encoding="utf-8")))
    return TrainedTeacher(
        folder=folder,
        recipe=recipe,
        scores=read_scores((folder / "scores.json").read_bytes()),
        curve=read_curve((folder / "curve.json").read_bytes()),
    )


def store_teacher(trained: Trained, *, recipe: TeacherRecipe, curve: tuple[EpochReport, ...], folder: Path) -> None:
    """Writes the teacher's folder, whole or not at all."""
    assert trained.logits is not None, "it is a teacher"
    with whole_folder(folder, replace=True) as beside:
        (beside / "teacher.safetensors").write_bytes(trained.weights)
        (beside / "teacher.yaml").write_text(describe_teacher(recipe), encoding="utf-8")
        (beside / "curve.json").write_text(dump_curve(curve), encoding="utf-8")
        np.save(beside / "logits.npy", trained.logits)
        (beside / "scores.json").write_text(dump_scores(trained.scores), encoding="utf-8")


def describe_teacher(recipe: TeacherRecipe) -> str:
    """The settings that made the teacher, as YAML."""
    settings = {"size": recipe.size, "seed": recipe.seed, "teacher": recipe.config.model_dump(mode="json")}
    return yaml.safe_dump(SCHEMA.stamped(settings), sort_keys=False)


def _file_state(config: TeacherConfig) -> str:
    """Stands for the content of files the settings name."""
    names = [config.checkpoint, config.weights.removeprefix("file:") if config.weights.startswith("file:") else None]
    paths = [Path(name).expanduser() for name in names if name]
    return " ".join(digest_file(path) for path in paths if path.is_file())
