"""Teachers trained elsewhere: an ONNX file, or stored predictions that are looked up by image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdsearch.config.networks import OnnxTeacher, PredictionsTeacher
from kdsearch.config.task import Task
from kdsearch.errors import ModelError, TeacherError
from kdsearch.files.onnx_runtime import run_session, session_of
from kdsearch.models.contract import INPUT_MEAN, INPUT_STD, Outputs
from kdsearch.models.teacher import Ensemble, Resized, Teacher, resized

KEY_BYTES = 16
FLOATS = (1, 10, 11, 16)
"""ONNX's codes of float32, float16, float64 and bfloat16."""
SUREST = 1e-4
"""Probabilities are clipped this far from 0 and 1, so that logits of a mask are finite."""
Tensors: TypeAlias = dict[str, Tensor]


class PredictedTeacher(nn.Module):
    """Stored logits of some images, looked up by a hash of their pixels."""

    keys: Tensor
    logits: Tensor

    def __init__(self, tensors: Tensors) -> None:
        """Takes ``keys`` N×16 and ``logits`` N×K×H×W of N images, as ``of`` makes them."""
        super().__init__()
        self.register_buffer("keys", tensors["keys"])
        self.register_buffer("logits", tensors["logits"])
        self._places = {bytes(key): place for place, key in enumerate(tensors["keys"].cpu().numpy())}

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8], probabilities: Sequence[npt.NDArray[np.float32]]) -> PredictedTeacher:
        """Makes a teacher from pixels N×C×H×W and N probability maps K×H×W."""
        by_key: dict[bytes, list[npt.NDArray[np.float32]]] = {}
        for image, one in zip(images, probabilities, strict=True):
            by_key.setdefault(_key(image), []).append(one)  # a folder may contain duplicate images
        means = torch.from_numpy(np.stack([np.mean(maps, axis=0) for maps in by_key.values()]))
        return cls({"keys": _as_tensor(list(by_key)), "logits": logits_of(means).half()})

    @classmethod
    def of_logits(cls, images: npt.NDArray[np.uint8], logits: Tensor) -> PredictedTeacher:
        """Makes a teacher from pixels N×C×H×W and logits N×K×H×W; the last of duplicate images counts."""
        last = {_key(image): place for place, image in enumerate(images)}
        return cls({"keys": _as_tensor(list(last)), "logits": logits[list(last.values())].half()})

    def forward(self, image: Tensor) -> Tensor:
        """Looks up logits N×K×H×W of normalized images N×C×H×W; raises TeacherError if one has no prediction."""
        places = self.places(image)
        known = [place for place in places if place is not None]
        if len(known) < len(places):
            raise TeacherError(
                f"teacher.folder: {len(places) - len(known)} of {len(places)} requested images have no prediction; "
                "add the missing predictions"
            )
        return self.at(known, image.device)

    def places(self, image: Tensor) -> list[int | None]:
        """Returns the position of each normalized image N×C×H×W; None if it is unknown."""
        return [self._places.get(_key(one)) for one in pixels_of(image).cpu().numpy()]

    def at(self, places: Sequence[int], device: torch.device) -> Tensor:
        """Returns the logits at these positions."""
        chosen = torch.tensor(places, device=self.logits.device, dtype=torch.long)
        return self.logits[chosen].float().to(device)

    def outputs(self, image: Tensor) -> Outputs:
        """Looks up logits; there are no feature maps."""
        return Outputs(logits=self(image), features=())

    def features(self, image: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002 - the contract's name
        """Never called: study files that compare feature maps of such a teacher are rejected."""
        raise AssertionError("predictions have no feature maps")


class OnnxNetwork(nn.Module):
    """A network from an ONNX file, run by ONNX Runtime on the CPU."""

    graph: Tensor

    def __init__(self, config: OnnxTeacher, content: bytes, task: Task) -> None:
        """Takes the study's task; raises TeacherError if the file's inputs or outputs do not fit."""
        super().__init__()
        self._config, self._outputs = config, task.outputs
        self._mean, self._std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (config.mean, config.std))
        try:
            self._session = session_of(content, name=f"teacher.file: {config.file}", threads=torch.get_num_threads())
        except ModelError as error:
            raise TeacherError(str(error)) from error
        self.register_buffer("graph", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self._input, self._channels, self._size, self._one_by_one = _contract(self._session, config, task)
        self.outputs(torch.zeros(task.input_shape).repeat(2, 1, 1, 1))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Computes logits N×K×H×W of images N×C×H×W, normalized as for a student."""
        small = resized((image * INPUT_STD + INPUT_MEAN).float().cpu(), self._size)
        fed = (small.repeat(1, self._channels // small.shape[1], 1, 1) - self._mean) / self._std
        parts = [self._run(part) for part in torch.split(fed, 1 if self._one_by_one else len(fed))]
        return resized(torch.cat(parts), image.shape[-2:]).to(image.device)

    def outputs(self, image: Tensor) -> Outputs:
        """Computes logits; there are no feature maps."""
        return Outputs(logits=self(image), features=())

    def features(self, image: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002 - the contract's name
        """Never called: study files that compare feature maps of such a teacher are rejected."""
        raise AssertionError("an ONNX file has no feature maps")

    def _run(self, fed: Tensor) -> Tensor:
        where = f"teacher.file: {self._config.file}"
        try:
            answers = run_session(self._session, {self._input: fed.numpy()}, name=where)
        except ModelError as error:
            raise TeacherError(str(error)) from error
        answer = next(iter(answers.values()))
        channels, (height, width) = (1, 2) if self._outputs == 1 else (self._outputs,), self._size
        fits = answer.ndim == 4 and answer.shape[1] in channels and answer.shape[2] * width == answer.shape[3] * height
        if len(answers) != 1 or answer.dtype.kind != "f" or not fits or len(answer) != len(fed):
            got = ", ".join(f"{one.dtype} {one.shape}" for one in answers.values())
            wanted = f"N×{self._outputs}×H×W, one channel per class, background first"
            raise TeacherError(
                f"{where}: the output must be floats "
                f"{'N×1×H×W, or N×2×H×W with the lesion second' if self._outputs == 1 else wanted}, got {got} for "
                f"{len(fed)} images"
            )
        found = torch.from_numpy(np.array(answer, dtype=np.float32))
        if not bool(torch.isfinite(found).all()):
            raise TeacherError(f"{where}: the output must be finite, got NaN or infinite values")
        if self._config.output == "logits":
            return found[:, 1:] - found[:, :1] if found.shape[1] == 2 and self._outputs == 1 else found
        if not bool(((found >= 0) & (found <= 1)).all()):
            raise TeacherError(
                f"{where}: probabilities must be between 0 and 1, got {float(found.min()):.3g} to "
                f"{float(found.max()):.3g}; if they are logits, set teacher.output: logits"
            )
        return logits_of(found[:, -1:] if self._outputs == 1 else found)


def params_of(content: bytes) -> int:
    """Counts the floating-point numbers in an ONNX file, including running statistics of batch norms."""
    import onnx

    graph = onnx.load_from_string(content).graph
    return sum(int(np.prod(one.dims)) for one in graph.initializer if one.data_type in FLOATS)


def logits_of(probabilities: Tensor) -> Tensor:
    """Converts probabilities N×K×H×W to finite logits: of a sigmoid for one channel, else of a softmax."""
    if probabilities.shape[1] == 1:
        return torch.logit(probabilities, eps=SUREST)
    return probabilities.clamp_min(SUREST).log()


def pixels_of(image: Tensor) -> Tensor:
    """Converts images, normalized as for a student, back to values 0-255."""
    return ((image * INPUT_STD + INPUT_MEAN) * 255).round().clamp(0, 255).to(torch.uint8)


def _contract(session: Any, config: OnnxTeacher, task: Task) -> tuple[str, int, tuple[int, int], bool]:
    """Returns the input's name, channels, height and width, and whether it takes only one image at a time."""
    where, inputs = f"teacher.file: {config.file}", session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else None
    if shape is None or len(shape) != 4 or inputs[0].type != "tensor(float)" or shape[1] not in (1, 3):
        got = ", ".join(f"{one.type} {one.shape}" for one in inputs)
        raise TeacherError(f"{where}: the input must be one float tensor N×1×H×W or N×3×H×W, got {got}")
    if shape[1] < task.channels:
        raise TeacherError(
            f"{where}: the input has one channel, but data.channels is 3; use a network for color images"
        )
    wanted = task.size if config.size is None else (config.size, config.size)
    size = tuple(given if isinstance(given, int) else side for given, side in zip(shape[2:], wanted, strict=True))
    if config.size is not None and size != wanted:
        raise TeacherError(
            f"{where}: the input is {shape[2]}×{shape[3]}, but teacher.size is {config.size}; set teacher.size: "
            f"{size[0]}, or remove it"
        )
    return inputs[0].name, shape[1], (size[0], size[1]), shape[0] == 1


def _as_tensor(keys: list[bytes]) -> Tensor:
    return torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).reshape(-1, KEY_BYTES)


def _key(pixels: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=KEY_BYTES).digest()


TeacherNetwork: TypeAlias = Teacher | Ensemble | Resized | PredictedTeacher | OnnxNetwork
"""A teacher of one of the kinds."""


def given_teacher(config: OnnxTeacher | PredictionsTeacher, tensors: Tensors, task: Task) -> TeacherNetwork:
    """Rebuilds a teacher from its ``state_dict``."""
    if isinstance(config, OnnxTeacher):
        return OnnxNetwork(config, tensors["graph"].numpy().tobytes(), task)
    return PredictedTeacher(tensors)


def one_network(teacher: TeacherNetwork) -> tuple[nn.Module, float]:
    """Returns the network that computes a teacher's feature maps, and the ratio of its image size to the students'."""
    network, times = (teacher.network, teacher.times) if isinstance(teacher, Resized) else (teacher, 1.0)
    return (network.members[0] if isinstance(network, Ensemble) else network), times
