"""Images and masks at the size of their files, one after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from kdsearch.config.data import DataConfig, PhantomSource, source_name
from kdsearch.data.phantom.simulate import simulate
from kdsearch.data.pixels import Pixels, read_grey, read_mask, white_of
from kdsearch.data.source import list_source
from kdsearch.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeImage:
    """One image before it is resized."""

    id: str
    """As in ``ImageInfo``."""
    grey: Pixels
    """H×W grey values 0-255."""
    mask: Pixels
    """H×W, 255 inside a lesion."""


def native_images(config: DataConfig, wanted: Collection[str]) -> Iterator[NativeImage]:
    """The wanted images by their ids, in the order of the sources; raises DataError for one that cannot be read."""
    for source in config.sources:
        name = source_name(source)
        if isinstance(source, PhantomSource):
            for index in range(source.images):
                if f"{name}/{index:05d}" in wanted:
                    phantom = simulate(index, seed=source.seed)
                    yield NativeImage(id=f"{name}/{index:05d}", grey=phantom.image, mask=phantom.mask)
            continue
        entries = list_source(source).entries
        white = white_of((entry.image for entry in entries), bits=source.bits)
        whites = () if white is None else (white,)
        for entry in entries:
            if f"{name}/{entry.id}" not in wanted:
                continue
            try:
                grey = read_grey(entry.image, whites=whites)
                mask = np.zeros_like(grey)
                for path in entry.masks:
                    mask |= read_mask(path, shape=(grey.shape[0], grey.shape[1]))
            except DataError as error:
                raise DataError(f"{entry.image}: {error}") from error
            yield NativeImage(id=f"{name}/{entry.id}", grey=grey, mask=mask)
