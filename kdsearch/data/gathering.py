"""Decodes a study's sources into arrays, and joins images that belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kdsearch.config.data import (
    FolderSource,
    ImagesSource,
    PhantomSource,
    PublishedSource,
    Source,
    UnlabelledSource,
    source_name,
)
from kdsearch.data.dataset import ACROSS, ImageInfo
from kdsearch.data.entry import Defect, Entry, Listing
from kdsearch.data.masks import SourceMasks
from kdsearch.data.near_duplicates import clusters_of, hash_image, similar_pairs, thumbnail
from kdsearch.data.phantom.simulate import simulate
from kdsearch.data.pixels import (
    AmbiguousError,
    Pixels,
    one_pixel,
    orientation_of,
    read_grey,
    resize_image,
    resize_mask,
    white_of,
)
from kdsearch.errors import DataError

STEP = 16
"""Between the sizes that are tried for a small lesion."""
LARGEST = 1024
"""Of ``data.size``."""
AS_STORED = (
    "; EXIF says that the image is shown turned, but kdsearch reads pixels as they are stored: turn it for good, such "
    "as with ImageOps.exif_transpose of Pillow"
)


@dataclass(slots=True)
class Gathered:
    """Images that were read, and what was found wrong."""

    images: list[Pixels] = field(default_factory=list)
    masks: list[Pixels] = field(default_factory=list)
    infos: list[ImageInfo] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    looks: dict[int, tuple[npt.NDArray[np.bool_], Pixels]] = field(default_factory=dict)
    """Hash and thumbnail of images from files, by their places."""
    whites: set[float] = field(default_factory=set)
    shrunk: dict[str, int | None] = field(default_factory=dict)
    """Images whose lesion is so small that it would vanish, and the least size at which it does not."""
    rotated: list[str] = field(default_factory=list)
    """Images that EXIF turns otherwise than their masks."""
    differs: bool = False
    """Whether releases that wrote no reading next to the arrays made other arrays of these files."""

    def keep_mask(self, name: str, mask: Pixels, size: int) -> None:
        """Adds the mask of the image ``name``; a lesion keeps one pixel at least."""
        small = resize_mask(mask, size)
        if mask.any() and not small.any():
            small = one_pixel(mask, size)
            sizes = range(size - size % STEP + STEP, LARGEST + 1, STEP)
            self.shrunk[name] = next((larger for larger in sizes if resize_mask(mask, larger).any()), None)
            self.differs = True
        self.masks.append(small)


def gather(
    sources: Sequence[Source | UnlabelledSource],
    listings: Sequence[Listing | None],
    *,
    size: int,
    whites: Sequence[float] | None = None,
) -> Gathered:
    """All images at that size, without the listings' defects; a simulated source has no listing.

    ``whites`` replace what is white in each source.
    """
    gathered = Gathered()
    for source, listing in zip(sources, listings, strict=True):
        if isinstance(source, PhantomSource):
            _simulate(source, size, gathered)
        else:
            assert listing is not None, "it is listed before it is read"
            _read(source, listing, size, gathered, whites=whites)
    return gathered


def _simulate(source: PhantomSource, size: int, gathered: Gathered) -> None:
    for index in range(source.images):
        phantom = simulate(index, seed=source.seed)
        gathered.images.append(resize_image(phantom.image, size))
        gathered.keep_mask(f"{source.name}/{index:05d}", phantom.mask, size)
        info = ImageInfo(id=f"{source.name}/{index:05d}", source=source.name, label=phantom.label, group=None)
        gathered.infos.append(info)


def _read(
    source: PublishedSource | FolderSource | ImagesSource,
    listing: Listing,
    size: int,
    gathered: Gathered,
    *,
    whites: Sequence[float] | None,
) -> None:
    name = source_name(source)
    gathered.defects += listing.defects
    if whites is None:
        white = white_of((entry.image for entry in listing.entries), bits=source.bits)
        whites = () if white is None else (white,)
    gathered.whites |= set(whites)
    masks = SourceMasks(path for entry in listing.entries for path in entry.masks)
    for entry in listing.entries:
        decoded = _decode(entry, gathered, whites=whites, masks=masks)
        if decoded is None:
            continue
        image, mask = decoded
        gathered.looks[len(gathered.images)] = hash_image(image), thumbnail(image)
        gathered.images.append(resize_image(image, size))
        gathered.keep_mask(f"{name}/{entry.id}", mask, size)
        gathered.infos.append(ImageInfo(id=f"{name}/{entry.id}", source=name, label=entry.label, group=entry.group))
        turned = orientation_of(entry.image)
        if any(orientation_of(path) != turned for path in entry.masks):
            gathered.rotated.append(f"{name}/{entry.id}")
    masks.require_one_coding(name)
    gathered.differs |= masks.recoded


def _decode(
    entry: Entry, gathered: Gathered, *, whites: Sequence[float], masks: SourceMasks
) -> tuple[Pixels, Pixels] | None:
    """Image and mask at their own size; None where a file of theirs was added to the defects."""
    path = entry.image
    try:
        image = read_grey(path, whites=whites)
        mask = np.zeros_like(image)
        for path in entry.masks:
            mask |= masks.read(path, shape=(image.shape[0], image.shape[1]))
    except DataError as error:
        turned = path != entry.image and orientation_of(entry.image) != orientation_of(path)
        gathered.defects.append(Defect(path=path, problem=f"{error}{AS_STORED if turned else ''}"))
        gathered.differs |= isinstance(error, AmbiguousError)
        return None
    return image, mask


def grouped(gathered: Gathered) -> list[ImageInfo]:
    """The images, near-duplicates in one group wherever none is given, and across sources.

    Within a source that names its groups, such as patients, those are trusted.
    """
    named = _named(gathered.infos, clusters(gathered))
    return [named[place] if place in gathered.looks else info for place, info in enumerate(gathered.infos)]


def clusters(gathered: Gathered, *, shared: Collection[str] = ()) -> list[int]:
    """For each image the number of its cluster: those that a group, or a near-duplicate picture, joins.

    Groups of one name are one in the sources ``shared``; in any other they are that source's own.
    """
    infos, places = gathered.infos, list(gathered.looks)
    trusted = all(infos[place].group for place in places) and len({infos[place].source for place in places}) <= 1
    pairs: list[tuple[int, int]] = []
    if not trusted:
        hashes, thumbnails = zip(*gathered.looks.values(), strict=True)
        pairs = [(places[a], places[b]) for a, b in similar_pairs(hashes, thumbnails)]
        pairs = [
            (a, b) for a, b in pairs if infos[a].source != infos[b].source or not (infos[a].group and infos[b].group)
        ]
    first: dict[tuple[str, str], int] = {}
    for place, info in enumerate(infos):
        if info.group is not None:
            whose = "" if info.source in shared else info.source
            pairs.append((first.setdefault((whose, info.group), place), place))
    return clusters_of(len(infos), pairs)


def _named(infos: list[ImageInfo], clusters: list[int]) -> list[ImageInfo]:
    """The images, grouped by their clusters, which are called by a given group or by their first image."""
    members: dict[int, list[ImageInfo]] = {}
    for info, number in zip(infos, clusters, strict=True):
        members.setdefault(number, []).append(info)
    names: dict[int, str] = {}
    for number, together in members.items():
        given = next((info.group for info in together if info.group is not None), None)
        name = given or together[0].id
        across = len({info.source for info in together}) > 1
        names[number] = f"{ACROSS}{together[0].id}" if across else name
    return [dataclasses.replace(info, group=names[number]) for info, number in zip(infos, clusters, strict=True)]
