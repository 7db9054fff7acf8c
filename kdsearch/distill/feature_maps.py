"""Teacher feature maps, aligned with the student's and cached for reuse."""

from __future__ import annotations

import copy
import hashlib
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdsearch.distill.batches import warp
from kdsearch.models.contract import Encoder, maps_at

OFFSETS = tuple(quarter / 4 for quarter in range(-4, 5))
"""Candidate offsets, in cells."""
LEAST_CELLS = 4
"""Smallest height and width of maps whose offset can be measured."""
LARGE = 256
"""Height and width in pixels, larger than the receptive fields of useful students."""
LEAST_STD = 0.1
"""Fraction of the mean over channels; keeps channels that are inactive on the measured images from being amplified."""
LEAST_GAIN = 0.02
"""Correlation that an offset must gain over no offset and over the opposite offset."""


class HiddenMaps:
    """Computes a teacher's feature maps, aligned so that each cell covers the same part of the image as the student's.

    The padding of a strided convolution on an even size shifts its sampling grid by half a cell; the image is shifted
    to compensate before the teacher computes its maps. ``mean`` and ``std``, both 1×K×1×1, are measured per channel.
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
        """Measures offset and statistics on ``images`` N×C×H×W, normalized.

        ``stride`` None means the encoder's output. ``offset``, in cells, is how far the teacher's grid is shifted
        relative to the student's; None measures it for students without a shift. ``budget`` limits the cached maps;
        None creates a separate one.
        """
        self._teacher, self._stride = teacher, stride
        self.known = KnownMaps(budget or MapBudget())
        self.offset = measure_offset(self._maps, images) if offset is None else offset
        self._cells = self._maps(images[:1]).shape[-2:]
        maps = self._aligned(images)
        self.mean = maps.mean(dim=(0, 2, 3), keepdim=True)
        std = maps.std(dim=(0, 2, 3), keepdim=True)
        self.std = torch.maximum(std, LEAST_STD * std.mean()).clamp_min(1e-6)

    def __call__(self, images: Tensor) -> Tensor:
        """Returns maps N×K×h×w for images N×C×H×W; do not change them in place."""
        return self.known.get(images, self._aligned)

    @torch.no_grad()
    def _aligned(self, images: Tensor) -> Tensor:
        return self._maps(moved(images, -self.offset, cells=self._cells) if self.offset else images)

    def _maps(self, images: Tensor) -> Tensor:
        return maps_at(self._teacher.features(images), self._stride, side=images.shape[-1]).float()

    def standardized(self, images: Tensor) -> Tensor:
        """Returns the maps with mean 0 and standard deviation 1 in each channel."""
        return (self(images) - self.mean) / self.std


def offset_by_padding(encoder: nn.Module, *, stride: int | None, channels: int = 1) -> float:
    """Computes how many cells a network's maps are shifted to the right, to a quarter, from its geometry only.

    The shift is the center of the receptive field of the two middle cells of a large image. It is measured on a copy
    whose kernels are weighted means, whose batch norms are neutral and which has no activations, so that the weights
    do not matter. ``channels`` are those of the network's images.
    """
    network = copy.deepcopy(encoder).eval().requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(0)
    for module in list(network.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.reset_running_stats()
        for name, part in module.named_children():
            if "activation" in type(part).__module__:  # torch's and timm's; saturated ones block gradients
                setattr(module, name, nn.Identity())
    for kernel in (parameter for parameter in network.parameters() if parameter.ndim == 4):
        means = 1 + 0.1 * torch.rand(kernel.shape, generator=generator)
        kernel.copy_(means / means.sum(dim=(1, 2, 3), keepdim=True))
    device = next(network.parameters()).device
    image = (
        torch.rand(1, channels, LARGE, LARGE, generator=generator).to(device).requires_grad_()
    )  # no ties in max pooling
    maps = maps_at(network.features(image), stride, side=LARGE)  # type: ignore[operator]  # an Encoder
    middle = maps.shape[-1] // 2
    (seen,) = torch.autograd.grad(maps[..., middle - 1 : middle + 1].sum(), image)
    weight = seen.abs().sum(dim=(0, 1, 2))
    assert weight.sum() > 0, "some pixel influences the middle cells"
    center = float((weight * torch.arange(LARGE, device=device)).sum() / weight.sum())
    return round(4 * (center - (LARGE - 1) / 2) * maps.shape[-1] / LARGE) / 4


@torch.no_grad()
def measure_offset(maps_of: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Measures how many cells the images' maps are shifted to the right and down, to a quarter.

    Without a shift, the maps of the mirrored image, mirrored back, match the maps of the image; otherwise they match
    after both are moved by the offset. Returns 0.0 if the maps have too few cells.
    """
    maps, mirrored = maps_of(images), maps_of(images.flip(-1))
    cells = maps.shape[-2:]
    if min(maps.shape[-2:]) < LEAST_CELLS:
        return 0.0

    def match(offset: float) -> float:
        a, b = (moved(part, -offset, cells=cells, down=0.0) for part in (maps, mirrored))
        return correlation(a, b.flip(-1))

    best = max(OFFSETS, key=match)
    return best if match(best) > max(match(0.0), match(-best)) + LEAST_GAIN else 0.0


def moved(images: Tensor, right: float, *, cells: Sequence[int], down: float | None = None) -> Tensor:
    """Samples images or maps ``right`` cells to the right and ``down`` cells below (default: ``right``).

    ``cells`` are the numbers of cells from top to bottom and from left to right.
    """
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    theta[:, 0, 2] = right * 2 / cells[1]
    theta[:, 1, 2] = (right if down is None else down) * 2 / cells[0]
    return warp(images, theta)


def correlation(a: Tensor, b: Tensor) -> float:
    """Correlation of two maps N×K×h×w; each channel is centered on its own mean."""
    a, b = (part - part.mean(dim=(0, 2, 3), keepdim=True) for part in (a, b))
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().clamp_min(1e-12))


MOST_BYTES = 256 * 2**20


class MapBudget:
    """A limit on the memory that all cached maps of a process use together."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._full = False
        self._known: weakref.WeakSet[KnownMaps] = weakref.WeakSet()

    def add(self, known: KnownMaps) -> None:
        """Counts these maps too, until they are garbage-collected."""
        self._known.add(known)

    def takes(self, more_bytes: int) -> bool:
        """Whether this many bytes fit; after the first refusal, refuses all until ``make_room`` is called."""
        self._full |= more_bytes > self._most_bytes - sum(known.bytes for known in self._known)
        return not self._full

    def make_room(self) -> None:
        """Clears all caches if the budget is full; call it when the augmented views change."""
        if self._full:
            for known in self._known:
                known.forget()
            self._full = False


class KnownMaps:
    """Caches maps on the CPU by the bytes of their images; maps beyond the budget are computed each time.

    Training runs with the same seed and batch size use the same views in the same order, so only the first one runs the
    teacher. On other devices nothing is cached, because CUDA graphs cannot look anything up.
    """

    def __init__(self, budget: MapBudget) -> None:
        """``budget`` is shared by all maps of the process."""
        self.bytes = 0
        self._budget = budget
        self._maps: dict[tuple[torch.Size, bytes], Tensor] = {}
        budget.add(self)

    def get(self, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns ``compute(images)``, from the cache if possible; do not change it in place.

        ``compute`` must be the same function in every call.
        """
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
        self._maps.clear()
        self.bytes = 0
