"""Encoders of timm: whether there is one of a name, what its weights expect, and which of its parts are used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from kdsearch.errors import EncoderError, nearest
from kdsearch.models.contract import GREY_MEAN, GREY_STD
from kdsearch.models.torchvision_operators import declare_missing_operators


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
