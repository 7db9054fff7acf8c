"""Feature maps of teacher and student: aligned, projected, and kept for reuse."""

from __future__ import annotations

import copy
import hashlib
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdsearch.distill.batches import warp
from kdsearch.models.contract import Encoder, maps_at

OFFSETS = tuple(quarter / 4 for quarter in range(-4, 5))
"""Cells."""
LEAST_CELLS = 4
"""In height and width; fewer say nothing of where they look."""
LARGE = 256
"""Pixels in height and width; wider than the receptive fields of students that are worth it."""
LEAST_STD = 0.1
"""Of the mean over channels; a channel that was silent on the measured images is not blown up when it is active."""
LEAST_GAIN = 0.02
"""Of correlation, over no offset at all and over the opposite one."""


class HiddenMaps:
    """Asks a teacher for its hidden maps, each cell of which then stands for the part of the image it lies over.

    A strided convolution on an even size looks half a cell to one side, by its padding: the image is moved by as much
    before the teacher sees it. ``mean`` and ``std``, 1×K×1×1, are those of each channel over the measured images.
    """

    def __init__(
        self,
        teacher: Encoder,
        images: Tensor,
        *,
        stride: int | None = None,
        offset: float | None = None,
        budget: MapBudget | None = None,
    ) -> None:
        """``images`` N×1×H×W, normalised, are what offset and statistics are measured on.

        ``stride`` is that of the maps; None stands for the encoder's output. ``offset`` is how many cells further the
        teacher's look than the student's; measured for students whose cells look straight ahead, unless given.
        Maps are kept within ``budget``; None stands for one of its own.
        """
        self._teacher, self._stride = teacher, stride
        self.known = KnownMaps(budget or MapBudget())
        self.offset = measure_offset(self._maps, images) if offset is None else offset
        self._cells = self._maps(images[:1]).shape[-1]
        maps = self._aligned(images)
        self.mean = maps.mean(dim=(0, 2, 3), keepdim=True)
        std = maps.std(dim=(0, 2, 3), keepdim=True)
        self.std = torch.maximum(std, LEAST_STD * std.mean()).clamp_min(1e-6)

    def __call__(self, images: Tensor) -> Tensor:
        """N×K×h×w of images N×1×H×W, not to be changed in place."""
        return self.known.get(images, self._aligned)

    @torch.no_grad()
    def _aligned(self, images: Tensor) -> Tensor:
        return self._maps(moved(images, -self.offset, cells=self._cells) if self.offset else images)

    def _maps(self, images: Tensor) -> Tensor:
        return maps_at(self._teacher.features(images), self._stride, side=images.shape[-1]).float()

    def standardised(self, images: Tensor) -> Tensor:
        """The same with mean 0 and standard deviation 1 in each channel."""
        return (self(images) - self.mean) / self.std


def offset_by_padding(encoder: nn.Module, *, stride: int | None) -> float:
    """How many cells to the right of its place a cell of a network's maps looks, by its geometry alone, to a quarter.

    That is the centre of the receptive field of the two cells in the middle of a large image, where a copy's kernels
    are weighted means, its batch norms neutral and its activations left out, so that no training is needed.
    """
    network = copy.deepcopy(encoder).eval().requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(0)
    for module in list(network.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.reset_running_stats()
        for name, part in module.named_children():
            if "activation" in type(part).__module__:  # torch's and timm's; saturated ones let nothing through
                setattr(module, name, nn.Identity())
    for kernel in (parameter for parameter in network.parameters() if parameter.ndim == 4):
        means = 1 + 0.1 * torch.rand(kernel.shape, generator=generator)
        kernel.copy_(means / means.sum(dim=(1, 2, 3), keepdim=True))
    device = next(network.parameters()).device
    image = torch.rand(1, 1, LARGE, LARGE, generator=generator).to(device).requires_grad_()  # no ties in max pooling
    maps = maps_at(network.features(image), stride, side=LARGE)  # type: ignore[operator]  # an Encoder
    middle = maps.shape[-1] // 2
    (seen,) = torch.autograd.grad(maps[..., middle - 1 : middle + 1].sum(), image)
    weight = seen.abs().sum(dim=(0, 1, 2))
    assert weight.sum() > 0, "some pixel reaches the cells in the middle"
    centre = float((weight * torch.arange(LARGE, device=device)).sum() / weight.sum())
    return round(4 * (centre - (LARGE - 1) / 2) * maps.shape[-1] / LARGE) / 4


@torch.no_grad()
def measure_offset(maps_of: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """How many cells to the right of its place a cell of the images' maps looks, to a quarter; the same downwards.

    The mirror image's maps, mirrored, match the image's own where cells look straight ahead; elsewhere they do after
    both were moved by the offset. 0.0 where maps have too few cells to tell.
    """
    maps, mirrored = maps_of(images), maps_of(images.flip(-1))
    cells = maps.shape[-1]
    if min(maps.shape[-2:]) < LEAST_CELLS:
        return 0.0

    def match(offset: float) -> float:
        a, b = (moved(part, -offset, cells=cells, down=0.0) for part in (maps, mirrored))
        return correlation(a, b.flip(-1))

    best = max(OFFSETS, key=match)
    return best if match(best) > max(match(0.0), match(-best)) + LEAST_GAIN else 0.0


def moved(images: Tensor, right: float, *, cells: int, down: float | None = None) -> Tensor:
    """Images or maps, looked at ``right`` cells (of ``cells`` a side) to the right, and as much or ``down`` below."""
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    theta[:, 0, 2] = right * 2 / cells
    theta[:, 1, 2] = (right if down is None else down) * 2 / cells
    return warp(images, theta)


def correlation(a: Tensor, b: Tensor) -> float:
    """Of maps N×K×h×w, each channel about its own mean."""
    a, b = (part - part.mean(dim=(0, 2, 3), keepdim=True) for part in (a, b))
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().clamp_min(1e-12))


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
