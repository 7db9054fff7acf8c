"""Folders of cached teachers: where they are, what they contain, and how they are read and written."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import yaml
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file
from torch import Tensor

from kdsearch.config.networks import AnyTeacher, PredictionsTeacher, TeacherConfig, TeacherSection
from kdsearch.config.ranges import READING
from kdsearch.config.renamed import former_names, up_to_date
from kdsearch.config.task import Task
from kdsearch.config.training import without_new
from kdsearch.data.predictions import PredictionFolder
from kdsearch.distill.result import Halves, Kept, Trained
from kdsearch.distill.teacher import TeacherRecipe, load_network
from kdsearch.errors import first_line
from kdsearch.files.atomic import atomic_folder
from kdsearch.files.digests import digest, digest_file
from kdsearch.files.home import expanded
from kdsearch.files.schema import Content, Schema, unchanged
from kdsearch.models.given_teachers import PredictedTeacher, TeacherNetwork, given_teacher
from kdsearch.models.teacher import Ensemble, Resized, Teacher, empty_teacher
from kdsearch.trials.record import EpochReport, dump_curve, read_curve
from kdsearch.trials.scores import Scores, dump_scores, read_scores

FORMAT = 2
"""Increases when the way teachers are trained changes, so that older cached teachers are not used."""
FILE = "file:"
"""Prefix of the path of a weights file."""
OUT_OF_FOLD = "out of fold"
"""Part of the identity of ensembles by folds; older caches without it contain the mean logits of all members."""
KNOWN = "known.safetensors"
"""Logits, at the students' size, that a teacher with its own size predicted from the original images."""
LEFT_OUT = "left_out.npy"
"""For each training image, the member of an ensemble by folds that was not trained on it and whose logits are kept."""


def _renamed(content: Content) -> Content:
    """Schema 1 had the former names of the settings."""
    return content | up_to_date({"teacher": content["teacher"]}).content if "teacher" in content else content


SCHEMA = Schema(what="teacher's folder", upgrades=(unchanged, _renamed))
DAMAGED = (FileNotFoundError, EOFError, ValueError, KeyError, TypeError, yaml.YAMLError)
"""What reading a folder raises after a power cut, on a full disk, or after another program deleted files."""

logger = logging.getLogger(__name__)


Members: TypeAlias = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfFold:
    """Cross-validated predictions of an ensemble: each training image by the member that was not trained on it."""

    dice: float
    """Mean over training images with a lesion."""
    logits: Halves
    """N×C×H×W for the training images, at the students' size."""
    members: Members
    """N: the member that predicted each image, counted from 0."""


_TEACHER: TypeAdapter[AnyTeacher] = TypeAdapter(TeacherSection)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherContent:
    """The parts of a teacher's folder that students need."""

    weights: bytes
    """In the safetensors format."""
    logits: Halves
    """N×C×H×W for the training images."""
    known: bytes | None = None
    """Logits predicted at the teacher's own size, in the safetensors format; None if that is the students' size."""
    left_out: Members | None = None
    """As ``OutOfFold.members``; None if no members were left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTeacher:
    """A cached teacher."""

    folder: Path
    """Contains ``teacher.safetensors``, ``teacher.yaml``, ``scores.json``, ``curve.json`` and ``logits.npy``."""
    recipe: TeacherRecipe
    scores: Scores
    curve: tuple[EpochReport, ...]
    content: TeacherContent | None = None
    """The folder's content, if the folder may be on another machine."""
    out_of_fold: float | None = None
    """Mean cross-validated Dice of the training images; None if there are no members to leave out."""

    def headline(self) -> str:
        """One line of scores, including the cross-validated Dice if there is one."""
        dice = self.out_of_fold
        more = "" if dice is None else f"; cross-validated on its training images {100 * dice:.1f} %"
        return f"{self.scores.headline()}{more}"

    @property
    def id(self) -> str:
        """Identifies the teacher's settings, data and seed."""
        return self.folder.name

    def load(self, device: torch.device) -> TeacherNetwork:
        """Loads the network for evaluation, with gradients turned off."""
        teacher = self._network()
        teacher.eval().requires_grad_(requires_grad=False)
        return teacher.to(device)

    def _network(self) -> TeacherNetwork:
        config, task, path = self.recipe.config, self.recipe.task, self.folder / "teacher.safetensors"
        if not isinstance(config, TeacherConfig):
            tensors = load_file(path) if self.content is None else load(self.content.weights)
            return given_teacher(config, tensors, task)
        network, own = self.own_network(), self.recipe.own_task
        return network if own == task else Resized(network, times=own.width / task.width, known=self._known())

    def own_network(self) -> Teacher | Ensemble:
        """The trained network, for images of its own size; only for teachers of kind ``network``."""
        config, own, path = self.recipe.config, self.recipe.own_task, self.folder / "teacher.safetensors"
        assert isinstance(config, TeacherConfig), "kdsearch did not train other kinds"
        if self.content is None and config.ensemble == 1:
            return load_network(config, path, own)
        network = empty_teacher(config, own)
        network.load_state_dict(load_file(path) if self.content is None else load(self.content.weights))
        return network

    def _known(self) -> PredictedTeacher:
        if self.content is None:
            return PredictedTeacher(load_file(self.folder / KNOWN))
        assert self.content.known is not None, "packed teachers include these logits"
        return PredictedTeacher(load(self.content.known))

    def logits(self, device: torch.device) -> Tensor:
        """N×C×H×W for the training images, in half precision; on the CPU, without a copy."""
        if self.content is None:
            return torch.from_numpy(self._logits_array()).to(device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # never written to
            return torch.from_numpy(self.content.logits).to(device)

    def left_out(self, device: torch.device) -> Tensor | None:
        """N: the member that was not trained on each training image; None if there are no such members."""
        members = self.content.left_out if self.content is not None else self._left_out_array()
        return None if members is None else torch.from_numpy(members.astype(np.int64)).to(device)

    def packed(self) -> TrainedTeacher:
        """Reads the folder's content into memory."""
        weights = (self.folder / "teacher.safetensors").read_bytes()
        known = (self.folder / KNOWN).read_bytes() if (self.folder / KNOWN).is_file() else None
        logits = np.asarray(self._logits_array())
        content = TeacherContent(weights=weights, logits=logits, known=known, left_out=self._left_out_array())
        return dataclasses.replace(self, content=content)

    def _logits_array(self) -> Halves:
        logits: Halves = np.load(self.folder / "logits.npy", mmap_mode="c")
        return logits

    def _left_out_array(self) -> Members | None:
        path = self.folder / LEFT_OUT
        return np.load(path) if path.is_file() else None


def teacher_folder(recipe: TeacherRecipe, splits_fingerprint: str, home: Path, *, kept: Kept = "best") -> Path:
    """The folder of a recipe's teacher for a split of the images, with its best or its last weights.

    A setting that is added later must be left out here while it has its default, because otherwise the folder's name
    would change and no study would find its teacher. Names used to include the paths of files; such folders are found.
    """
    config = recipe.config
    settings = config.model_dump(mode="json")
    if isinstance(config, TeacherConfig):
        del settings["kind"]
        settings["training"] = without_new(settings["training"])
        if config.training.ema_epochs is None:
            del settings["training"]["ema_epochs"]
        usual = {"average_flipped": False, "size": None, "ensemble": 1, "ensemble_by": "folds"}
        settings["size"] = None if recipe.own_task == recipe.task else config.size
        settings = {key: value for key, value in settings.items() if key not in usual or value != usual[key]}
        settings = former_names(settings, "teacher")
    by_folds = isinstance(config, TeacherConfig) and config.ensemble > 1 and config.ensemble_by == "folds"
    more = (*(("last",) if kept == "last" else ()), *((OUT_OF_FOLD,) if by_folds else ()))
    content = _file_state(config)

    def named(settings: Mapping[str, object]) -> Path:
        return home / "teachers" / digest(FORMAT, splits_fingerprint, settings, content, recipe.seed, *more)

    placeless = _without_places(settings)
    folder, older = named(placeless), named(settings)
    return older if placeless != settings and not _is_whole(folder) and _is_whole(older) else folder


def _without_places(settings: Mapping[str, object]) -> dict[str, object]:
    """Replaces the paths of files, which are identified by their content."""
    found = dict(settings)
    found |= {key: "a file" for key in ("file", "folder", "checkpoint") if found.get(key) is not None}
    if str(found.get("weights")).startswith(FILE):
        found["weights"] = FILE
    return found


def _is_whole(folder: Path) -> bool:
    return (folder / "scores.json").is_file()


def open_teacher(recipe: TeacherRecipe, folder: Path) -> TrainedTeacher | None:
    """Opens the cached teacher; returns None if it is unfinished or damaged.

    Raises KdsearchError if a newer release wrote it.
    """
    if not _is_whole(folder):
        return None
    try:
        return _opened(recipe, folder)
    except DAMAGED as error:
        logger.warning("the cached teacher %s is damaged (%s); kdsearch run trains it again", folder, first_line(error))
        return None


def _opened(recipe: TeacherRecipe, folder: Path) -> TrainedTeacher:
    SCHEMA.upgraded(yaml.safe_load((folder / "teacher.yaml").read_text(encoding="utf-8")))
    if problem := damage_of(folder / "teacher.safetensors"):
        raise ValueError(problem)
    logits, config = np.load(folder / "logits.npy", mmap_mode="r"), recipe.config
    if isinstance(config, TeacherConfig) and config.ensemble > 1 and config.ensemble_by == "folds":
        members = np.load(folder / LEFT_OUT)
        if len(members) != len(logits):
            raise ValueError(f"{LEFT_OUT} has {len(members)} images, logits.npy has {len(logits)}")
    dice = folder / "out_of_fold.json"
    return TrainedTeacher(
        folder=folder,
        recipe=recipe,
        scores=read_scores((folder / "scores.json").read_bytes()),
        curve=read_curve((folder / "curve.json").read_bytes()),
        out_of_fold=float(json.loads(dice.read_bytes())["dice"]) if dice.is_file() else None,
    )


def damage_of(path: Path) -> str:
    """Why a safetensors file cannot be read, judged by its header and length; empty if it can be."""
    try:
        with safe_open(path, framework="np"):
            return ""
    except SafetensorError as error:
        return f"{path.name}: {error}"


def recipe_in(folder: Path, task: Task) -> TeacherRecipe | None:
    """Reads the settings the folder's teacher was trained with, for the students' task.

    Returns None if they are missing or unreadable. They may differ from the study file's, because defaults may have
    changed since.
    """
    try:
        known = SCHEMA.upgraded(yaml.safe_load((folder / "teacher.yaml").read_text(encoding="utf-8")))
        config = _TEACHER.validate_json(json.dumps(known["teacher"]), context=READING)
        return TeacherRecipe(config=config, task=task, seed=known["seed"])
    except DAMAGED:  # a ValidationError is a ValueError; open_teacher names the damage
        return None


def store_teacher(
    trained: Trained,
    *,
    recipe: TeacherRecipe,
    curve: tuple[EpochReport, ...],
    folder: Path,
    out_of_fold: OutOfFold | None = None,
) -> None:
    """Writes the teacher's folder atomically; cross-validated logits replace those of the whole ensemble."""
    assert trained.logits is not None, "a teacher has logits"
    with atomic_folder(folder, replace=True) as new:
        (new / "teacher.safetensors").write_bytes(trained.weights)
        (new / "teacher.yaml").write_text(describe_teacher(recipe), encoding="utf-8")
        (new / "curve.json").write_text(dump_curve(curve), encoding="utf-8")
        _save(new / "logits.npy", trained.logits if out_of_fold is None else out_of_fold.logits)
        if out_of_fold is not None:
            _save(new / LEFT_OUT, out_of_fold.members)
            (new / "out_of_fold.json").write_text(json.dumps({"dice": out_of_fold.dice}), encoding="utf-8")
        (new / "scores.json").write_text(dump_scores(trained.scores), encoding="utf-8")


def _save(path: Path, array: Halves | Members) -> None:
    """Like ``np.save``, whose OSError does not say why a write to a full disk failed."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)


def describe_teacher(recipe: TeacherRecipe) -> str:
    height, width = recipe.task.size
    size = height if height == width else [height, width]
    settings = {"size": size, "seed": recipe.seed, "teacher": recipe.config.model_dump(mode="json")}
    return yaml.safe_dump(SCHEMA.stamped(settings), sort_keys=False)


@functools.lru_cache(maxsize=100_000)
def _digest_as_it_is(path: Path, _changed_ns: int) -> str:
    return digest_file(path)


def _file_state(config: AnyTeacher) -> str:
    """Identifies the content of the files that the settings name."""
    if isinstance(config, PredictionsTeacher):
        folder = expanded(config.folder, field="teacher.folder")
        files = PredictionFolder(folder).files() if folder.is_dir() else []
        return digest(
            [(str(path.relative_to(folder)), _digest_as_it_is(path, path.stat().st_mtime_ns)) for path in files]
        )
    names = [config.file]
    if isinstance(config, TeacherConfig) and config.weights.startswith(FILE):
        names.append(config.weights.removeprefix(FILE))
    paths = [expanded(name, field="teacher") for name in names if name]
    return " ".join(digest_file(path) for path in paths if path.is_file())
