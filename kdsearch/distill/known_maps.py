"""Maps of images that a teacher was asked about before."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable

import torch
from torch import Tensor

MOST_BYTES = 256 * 2**20


class MapBudget:
    """How many bytes all maps that one process keeps may take together."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._full = False
        self._known: weakref.WeakSet[KnownMaps] = weakref.WeakSet()

    def add(self, known: KnownMaps) -> None:
        """Counts these maps too, for as long as somebody holds them."""
        self._known.add(known)

    def takes(self, more_bytes: int) -> bool:
        """Whether there is room for so many bytes more; once there was none, no others are taken until room is made."""
        self._full |= more_bytes > self._most_bytes - sum(known.bytes for known in self._known)
        return not self._full

    def make_room(self) -> None:
        """To be called when other views come than those before: if it is full, all start over."""
        if self._full:
            for known in self._known:
                known.forget()
            self._full = False


class KnownMaps:
    """Keeps maps by the bytes of their images, on the CPU, within a budget; what comes later is computed each time.

    Trainings of one seed and batch size see the same views in the same order: only the first of them pays for the
    teacher. On other devices nothing is kept: CUDA graphs cannot look anything up.
    """

    def __init__(self, budget: MapBudget) -> None:
        """``budget`` is shared with the other maps of the process."""
        self.bytes = 0
        self._budget = budget
        self._maps: dict[tuple[torch.Size, bytes], Tensor] = {}
        budget.add(self)

    def get(self, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``compute``, always the same, makes of the images; not to be changed in place."""
        if images.device.type != "cpu":
            return compute(images)
        key = images.shape, hashlib.blake2b(images.contiguous().numpy().data, digest_size=16).digest()
        if key in self._maps:
            return self._maps[key]
        maps = compute(images)
        if self._budget.takes(maps.nbytes):
            self.bytes += maps.nbytes
            self._maps[key] = maps
        return maps

    def forget(self) -> None:
        """Forgets all maps."""
        self._maps.clear()
        self.bytes = 0
