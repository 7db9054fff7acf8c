"""Teachers that were trained elsewhere: an ONNX file, and predictions that are looked up by the image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdsearch.config.networks import OnnxTeacher, PredictionsTeacher
from kdsearch.errors import ModelError, TeacherError
from kdsearch.files.onnx_runtime import run_session, session_of
from kdsearch.models.contract import GREY_MEAN, GREY_STD, Outputs
from kdsearch.models.teacher import Ensemble, Resized, Teacher, resized

KEY_BYTES = 16
FLOATS = (1, 10, 11, 16)
"""ONNX's numbers for floating-point types of 32, 16, 64 and, as bfloat, 16 bits."""
SUREST = 1e-4
"""Probabilities nearer to 0 or 1 count as this near: a mask's logits are finite."""
Tensors: TypeAlias = dict[str, Tensor]


class PredictedTeacher(nn.Module):
    """Knows the logits of some images, by their grey values, and of no others."""

    keys: Tensor
    logits: Tensor

    def __init__(self, tensors: Tensors) -> None:
        """``keys`` N×16 and ``logits`` N×1×S×S of N images, as ``of`` makes them."""
        super().__init__()
        self.register_buffer("keys", tensors["keys"])
        self.register_buffer("logits", tensors["logits"])
        self._places = {bytes(key): place for place, key in enumerate(tensors["keys"].cpu().numpy())}

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8], probabilities: Sequence[npt.NDArray[np.float32]]) -> PredictedTeacher:
        """From grey values N×S×S and as many probability maps S×S."""
        by_key: dict[bytes, list[npt.NDArray[np.float32]]] = {}
        for image, one in zip(images, probabilities, strict=True):
            by_key.setdefault(_key(image), []).append(one)  # the same picture may lie in a folder twice
        means = torch.from_numpy(np.stack([np.mean(maps, axis=0) for maps in by_key.values()]))
        logits = torch.logit(means.unsqueeze(1), eps=SUREST).half()
        return cls({"keys": _as_tensor(list(by_key)), "logits": logits})

    @classmethod
    def of_logits(cls, images: npt.NDArray[np.uint8], logits: Tensor) -> PredictedTeacher:
        """From grey values N×S×S and logits N×C×S×S; of pictures that are there twice, the last one's."""
        last = {_key(image): place for place, image in enumerate(images)}
        return cls({"keys": _as_tensor(list(last)), "logits": logits[list(last.values())].half()})

    def forward(self, image: Tensor) -> Tensor:
        """Logits N×1×S×S of images N×1×S×S, normalised; raises TeacherError for one that was not predicted."""
        places = self.places(image)
        known = [place for place in places if place is not None]
        if len(known) < len(places):
            raise TeacherError(
                f"teacher.folder: {len(places) - len(known)} of {len(places)} images asked about have no prediction; "
                "add them"
            )
        return self.at(known, image.device)

    def places(self, image: Tensor) -> list[int | None]:
        """Where each of the images N×1×S×S, normalised, is known; None where it is not."""
        return [self._places.get(_key(one)) for one in grey_of(image)[:, 0].cpu().numpy()]

    def at(self, places: Sequence[int], device: torch.device) -> Tensor:
        """The logits there."""
        chosen = torch.tensor(places, device=self.logits.device, dtype=torch.long)
        return self.logits[chosen].float().to(device)

    def outputs(self, image: Tensor) -> Outputs:
        """Logits, and no maps."""
        return Outputs(logits=self(image), features=())

    def features(self, image: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002 - the contract's name
        """There are none; study files that compare them are refused."""
        raise AssertionError("predictions have no hidden maps")


class OnnxNetwork(nn.Module):
    """A network of an ONNX file, asked through ONNX Runtime on the processor."""

    graph: Tensor

    def __init__(self, config: OnnxTeacher, content: bytes, *, size: int) -> None:
        """``size`` is that of the study's images. Raises TeacherError where the file does not keep the contract."""
        super().__init__()
        self._config = config
        try:
            self._session = session_of(content, name=f"teacher.file: {config.file}", threads=torch.get_num_threads())
        except ModelError as error:
            raise TeacherError(str(error)) from error
        self.register_buffer("graph", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self._input, self._channels, self._side, self._one_by_one = _contract(self._session, config, size=size)
        self.outputs(torch.zeros(2, 1, size, size))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Logits N×1×H×W of images N×1×H×W, normalised as for a student."""
        grey = (image * GREY_STD + GREY_MEAN - self._config.mean) / self._config.std
        fed = resized(grey.float().cpu(), self._side).repeat(1, self._channels, 1, 1)
        parts = [self._ask(part) for part in (torch.split(fed, 1 if self._one_by_one else len(fed)))]
        return resized(torch.cat(parts), image.shape[-1]).to(image.device)

    def outputs(self, image: Tensor) -> Outputs:
        """Logits, and no maps."""
        return Outputs(logits=self(image), features=())

    def features(self, image: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002 - the contract's name
        """There are none; study files that compare them are refused."""
        raise AssertionError("an ONNX file gives no hidden maps")

    def _ask(self, fed: Tensor) -> Tensor:
        where = f"teacher.file: {self._config.file}"
        try:
            answers = run_session(self._session, {self._input: fed.numpy()}, name=where)
        except ModelError as error:
            raise TeacherError(str(error)) from error
        answer = next(iter(answers.values()))
        fits = answer.ndim == 4 and answer.shape[1] in (1, 2) and answer.shape[2] == answer.shape[3]
        if len(answers) != 1 or answer.dtype.kind != "f" or not fits or len(answer) != len(fed):
            got = ", ".join(f"{one.dtype} {one.shape}" for one in answers.values())
            raise TeacherError(
                f"{where}: gives {got} for {len(fed)} images; must give floats N×1×H×W, or N×2×H×W, lesion second"
            )
        found = torch.from_numpy(np.array(answer, dtype=np.float32))
        if not bool(torch.isfinite(found).all()):
            raise TeacherError(f"{where}: gives values that are not finite")
        return self._logits(found, where)

    def _logits(self, found: Tensor, where: str) -> Tensor:
        if self._config.output == "logits":
            return found[:, 1:] - found[:, :1] if found.shape[1] == 2 else found
        if not bool(((found >= 0) & (found <= 1)).all()):
            raise TeacherError(f"{where}: gives values outside of 0 to 1; write teacher.output: logits")
        return torch.logit(found[:, -1:], eps=SUREST)


def params_of(content: bytes) -> int:
    """How many numbers an ONNX file holds, running statistics of batch norms among them."""
    import onnx

    graph = onnx.load_from_string(content).graph
    return sum(int(np.prod(one.dims)) for one in graph.initializer if one.data_type in FLOATS)


def grey_of(image: Tensor) -> Tensor:
    """Grey values 0-255 of images normalised as for a student."""
    return ((image * GREY_STD + GREY_MEAN) * 255).round().clamp(0, 255).to(torch.uint8)


def _contract(session: Any, config: OnnxTeacher, *, size: int) -> tuple[str, int, int, bool]:
    """The input's name and channels, the side that it is fed, and whether it takes one image at a time."""
    where, inputs = f"teacher.file: {config.file}", session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else None
    if shape is None or len(shape) != 4 or inputs[0].type != "tensor(float)" or shape[1] not in (1, 3):
        got = ", ".join(f"{one.type} {one.shape}" for one in inputs)
        raise TeacherError(f"{where}: must take one float tensor N×1×H×W or N×3×H×W, takes {got}")
    fixed = {side for side in shape[2:] if isinstance(side, int)}
    side = config.size or next(iter(fixed), size)
    if len(fixed) > 1:
        raise TeacherError(f"{where}: takes images of {shape[2]}×{shape[3]}; must take square ones")
    if fixed - {side}:
        raise TeacherError(f"{where}: takes images of {shape[2]}×{shape[3]}, not of {side}×{side}; write that as size")
    return inputs[0].name, shape[1], side, shape[0] == 1


def _as_tensor(keys: list[bytes]) -> Tensor:
    return torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).reshape(-1, KEY_BYTES)


def _key(grey: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(grey).tobytes(), digest_size=KEY_BYTES).digest()


TeacherNetwork: TypeAlias = Teacher | Ensemble | Resized | PredictedTeacher | OnnxNetwork
"""A teacher of any kind."""


def given_teacher(config: OnnxTeacher | PredictionsTeacher, tensors: Tensors, *, size: int) -> TeacherNetwork:
    """The teacher whose tensors were kept, as ``state_dict`` gave them."""
    if isinstance(config, OnnxTeacher):
        return OnnxNetwork(config, tensors["graph"].numpy().tobytes(), size=size)
    return PredictedTeacher(tensors)


def one_network(teacher: TeacherNetwork) -> tuple[nn.Module, float]:
    """The network whose hidden maps a teacher gives, and how many times as large its images are as the students'."""
    network, times = (teacher.network, teacher.times) if isinstance(teacher, Resized) else (teacher, 1.0)
    return (network.members[0] if isinstance(network, Ensemble) else network), times
