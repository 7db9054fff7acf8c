"""Loads a picked student as a function from images to masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.special import expit, softmax

from kdsearch.data.pixels import pixels_of, read_pixels
from kdsearch.errors import DataError, ModelError
from kdsearch.export.description import Description, read_description, require_unchanged
from kdsearch.export.timing import DESCRIPTION, INT8, ONNX, WEIGHTS
from kdsearch.files.onnx_runtime import only_input, open_session, run_session

if TYPE_CHECKING:
    from torch import nn

Runtime = Literal["onnx", "int8", "torch"]
ImageLike: TypeAlias = "str | Path | Image.Image | npt.NDArray[np.uint8]"
Floats: TypeAlias = npt.NDArray[np.float32]
Network: TypeAlias = Callable[[npt.NDArray[np.uint8]], Floats]
"""From pixels, H×W or H×W×3 at the network's size, to logits K×H×W."""

FILES: dict[Runtime, str] = {"onnx": ONNX, "int8": INT8, "torch": WEIGHTS}


class Student:
    """A picked student that predicts masks; ``description`` has its settings and scores."""

    def __init__(self, description: Description, network: Network) -> None:
        self.description = description
        self._network = network

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes other than the background, in the order of their numbers."""
        return self.description.classes

    def __call__(self, image: ImageLike) -> npt.NDArray[np.bool_] | npt.NDArray[np.uint8]:
        """Predicts the mask H×W at the image's size: true for pixels that belong to the object.

        With several classes, returns their numbers as uint8: 0 for the background, then the order of ``classes``.
        The image is a file, a Pillow image, or a uint8 array of shape H×W or H×W×3. Raises DataError if it is none of
        these or cannot be decoded.
        """
        return classes_of(self.logits(image))

    def probabilities(self, image: ImageLike) -> Floats:
        """Predicts the probability, 0-1, that each pixel belongs to the object: H×W, at the image's size.

        With several classes, returns K×H×W with the probability of each class, background first.
        """
        return shares_of(self.logits(image))

    def logits(self, image: ImageLike) -> Floats:
        """Predicts the logits that ``probabilities`` converts, interpolated to the image's size."""
        pixels = self.pixels(image)
        logits = self.description.input.frame.logits(self.small_logits(pixels), (pixels.shape[0], pixels.shape[1]))
        return logits[0] if len(logits) == 1 else logits

    def small_logits(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Predicts logits K×h×w, at the student's size, from pixels H×W or H×W×3."""
        return self._network(self.description.input.frame.image(pixels))

    def pixels(self, image: ImageLike) -> npt.NDArray[np.uint8]:
        """Reads an image as the student does: gray values H×W, or RGB H×W×3."""
        return _pixels(image, channels=self.description.input.channels, whites=self.description.input.whites)


def classes_of(logits: Floats) -> npt.NDArray[np.bool_] | npt.NDArray[np.uint8]:
    """Converts logits H×W to a mask, and logits K×H×W to class numbers."""
    return logits > 0 if logits.ndim == 2 else np.asarray(logits.argmax(axis=0), dtype=np.uint8)


def shares_of(logits: Floats) -> Floats:
    """Converts logits H×W, or K×H×W of several classes, to probabilities, 0-1."""
    return np.asarray(expit(logits) if logits.ndim == 2 else softmax(logits, axis=0), dtype=np.float32)


def load_student(folder: str | Path, *, runtime: Runtime = "onnx") -> Student:
    """Loads the student from a folder that ``kdsearch pick`` wrote.

    ``runtime`` is ``onnx``, ``int8`` (the 8-bit ONNX file) or ``torch``. Raises ModelError if the folder does not
    contain a student or the file was changed.
    """
    folder = Path(folder)
    if runtime not in FILES:
        raise ModelError(f"runtime {runtime!r}: choose one of {', '.join(FILES)}")
    description = read_description(folder)
    path = folder / FILES[runtime]
    require_unchanged(path, description)
    network = _torch_network(path, description) if runtime == "torch" else _onnx_network(path, description)
    return Student(description, network)


def _onnx_network(path: Path, description: Description) -> Network:
    session = open_session(path)
    task, mean, std = description.task, description.input.mean, description.input.std
    fed = only_input(session)
    raw = fed.type == "tensor(uint8)"

    def run(pixels: npt.NDArray[np.uint8]) -> Floats:
        colors = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        image = colors[None] if raw else _normalized(pixels, mean=mean, std=std)
        logits = next(iter(run_session(session, {fed.name: image}, name=str(path)).values()))
        if logits.shape != (1, task.outputs, *task.size):
            raise ModelError(
                f"{path}: output has shape {logits.shape}, expected 1×{task.outputs}×{task.describe_size()}; run "
                "kdsearch pick again"
            )
        return _finite(np.asarray(logits[0], dtype=np.float32), path)

    return run


def _torch_network(path: Path, description: Description) -> Network:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    from kdsearch.models.students import build_student

    spec, task = description.recipe.student, description.task
    build = partial(build_student, spec, channels=task.channels, outputs=task.outputs)
    wanted = {name: list(tensor.shape) for name, tensor in build(device="meta").state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a mapping
        wrong = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
        if wrong:
            name = wrong[0]
            raise ModelError(
                f"{path}: {name} has shape {found.get(name)}, but the network in {DESCRIPTION} has {wanted.get(name)}; "
                "run kdsearch pick again"
            )
        network = build(begun=False)
        network.load_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file: {error}") from error
    run_torch = torch_network(network.eval(), mean=description.input.mean, std=description.input.std)
    return lambda pixels: _finite(run_torch(pixels), path)


def torch_network(network: nn.Module, *, mean: float, std: float) -> Network:
    """Returns a torch network as a function from pixels at its size to logits K×H×W."""
    import torch

    @torch.inference_mode()
    def run(pixels: npt.NDArray[np.uint8]) -> Floats:
        logits: Floats = network(torch.from_numpy(_normalized(pixels, mean=mean, std=std)))[0].numpy()
        return logits

    return run


def _finite(logits: Floats, path: Path) -> Floats:
    if not np.isfinite(logits).all():
        raise ModelError(f"{path}: predicted values that are not finite; run kdsearch pick again")
    return logits


def _normalized(pixels: npt.NDArray[np.uint8], *, mean: float, std: float) -> Floats:
    """1×C×H×W."""
    scaled = (pixels.astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)
    planes = scaled[None] if scaled.ndim == 2 else np.ascontiguousarray(scaled.transpose(2, 0, 1))
    return planes[None]


def _pixels(image: ImageLike, *, channels: int, whites: Sequence[float]) -> npt.NDArray[np.uint8]:
    if isinstance(image, str | Path):
        try:
            return read_pixels(Path(image), channels=channels, whites=whites)
        except DataError as error:
            raise DataError(f"{image}: {error}") from error
    if isinstance(image, Image.Image):
        return pixels_of(image, channels=channels, whites=whites)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        got = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"an image must be a file, a Pillow image, or uint8 of shape H×W or H×W×3, got {got}")
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        raise DataError(f"an image's third dimension must be 3 or 4 color channels, got shape {image.shape}")
    return pixels_of(Image.fromarray(image), channels=channels)
