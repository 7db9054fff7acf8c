"""Decodes a study's sources into arrays, and joins images that belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

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
from kdsearch.data.layout import Defect, Entry, Listing
from kdsearch.data.masks import SourceMasks
from kdsearch.data.phantom import simulate
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

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

DIFFERENCE_BITS, HASH_BITS = 256, 320
MAX_DIFFERENCE_BITS = 30
"""Of the 256-bit difference hash. Between different images of BUSI 32 are the fewest; half of a JPEG's size, 16."""
MAX_PERCEPTUAL_BITS = 8
"""Of the 64-bit perceptual hash."""
MAX_BITS_IF_NAMED_ALIKE = 45, 12
"""The same where a file's name or group says so too: 2 % may be cut off at each side."""
ROWS = 1024
"""Images that are compared at once."""
THUMBNAIL = 64
"""Height and width in pixels of what is correlated."""
MAX_SHIFT = 8
"""Pixels of a thumbnail."""
LEAST_CORRELATION = 0.95
"""Of the overlap. On BUSI all 36 pairs above it that the hashes miss show one scan; below it others begin."""
WORTH_A_LOOK = 0.75
"""Of the circular correlation, which is fast."""


def hash_image(image: Pixels) -> Bools:
    """320 bits: the 256-bit difference hash and the 64-bit perceptual hash of an H×W gray image.

    The former says where gray values rise from left to right, the latter which of the lowest 8×8 cosine waves are
    stronger than their median; both as the package ImageHash computes them.
    """
    picture = Image.fromarray(image)
    small, large = (np.asarray(picture.resize(size, Image.Resampling.LANCZOS)) for size in ((17, 16), (32, 32)))
    waves = fft.dctn(large.astype(np.float64))[:8, :8]
    return np.concatenate([(small[:, 1:] > small[:, :-1]).ravel(), (waves > np.median(waves)).ravel()])


def thumbnail(image: Pixels) -> Pixels:
    """The image at 64×64."""
    return np.asarray(Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR))


def are_near(hashes: Bools, known: Bools, *, named_alike: bool = False) -> Bools:
    """N, true where one of N×320 hashes is near one of the known M×320: the picture is a copy of a known one."""
    if not len(known):
        return np.zeros(len(hashes), dtype=np.bool_)
    parts = (
        _near(hashes[start : start + ROWS], known, named_alike=named_alike) for start in range(0, len(hashes), ROWS)
    )
    return np.concatenate([part.any(axis=1) for part in parts])


def similar_pairs(hashes: Sequence[Bools], thumbnails: Sequence[Pixels]) -> list[tuple[int, int]]:
    """Positions of pairs that show one picture: both hashes are near, or thumbnails correlate after a small shift."""
    bits = np.stack(hashes)
    pairs = {(int(a), int(b)) for a, b in np.argwhere(np.triu(_near(bits, bits), k=1))}
    stack = np.stack(thumbnails).astype(np.float32)
    pairs |= {(a, b) for a, b, shift in _candidates(stack) if _correlation(stack[a], stack[b], shift)}
    return sorted(pairs)


def clusters_of(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of ``count`` positions the number of its cluster; those of a pair are in one."""
    edges = np.array([*pairs, *((index, index) for index in range(count))], dtype=np.int64).reshape(-1, 2)
    graph = csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, clusters = connected_components(graph, directed=False)
    return [int(number) for number in clusters]


def _near(a: Bools, b: Bools, *, named_alike: bool = False) -> Bools:
    """N×M, true where both hashes of N×320 and M×320 are near."""
    most = MAX_BITS_IF_NAMED_ALIKE if named_alike else (MAX_DIFFERENCE_BITS, MAX_PERCEPTUAL_BITS)
    differ = _distances(a[:, :DIFFERENCE_BITS], b[:, :DIFFERENCE_BITS]) <= most[0]
    return np.asarray(differ & (_distances(a[:, DIFFERENCE_BITS:], b[:, DIFFERENCE_BITS:]) <= most[1]))


def _distances(a: Bools, b: Bools) -> Floats:
    """N×M numbers of bits that differ; whole numbers, as float32 for the sake of speed."""
    ones, others = a.sum(axis=1, dtype=np.float32), b.sum(axis=1, dtype=np.float32)
    return np.asarray(ones[:, None] + others[None, :] - 2 * (a.astype(np.float32) @ b.T.astype(np.float32)))


def _candidates(stack: Floats) -> Iterable[tuple[int, int, tuple[int, int]]]:
    """Pairs whose circular cross-correlation is high at a small shift, and that shift downwards and to the right."""
    centred = stack - stack.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt(np.square(centred).sum(axis=(1, 2), keepdims=True))
    spectra = fft.rfft2(centred / np.maximum(norms, 1e-6))
    around = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
    for index in range(len(stack) - 1):
        correlations = fft.irfft2(spectra[index + 1 :] * np.conj(spectra[index]), s=stack.shape[1:])
        near = correlations[:, around][:, :, around].reshape(len(correlations), -1)
        for other in np.flatnonzero(near.max(axis=1) > WORTH_A_LOOK):
            down, right = np.unravel_index(near[other].argmax(), (len(around), len(around)))
            yield index, index + 1 + int(other), (int(around[down]), int(around[right]))


def _correlation(a: Floats, b: Floats, shift: tuple[int, int]) -> bool:
    """Whether the pictures' overlap correlates at the shift or one pixel beside it."""
    return any(
        _overlap(a, b, down, right) >= LEAST_CORRELATION
        for down in range(shift[0] - 1, shift[0] + 2)
        for right in range(shift[1] - 1, shift[1] + 2)
    )


def _overlap(a: Floats, b: Floats, down: int, right: int) -> float:
    """Normalised cross-correlation of where both are, b moved back by the shift."""
    height, width = a.shape[0] - abs(down), a.shape[1] - abs(right)
    p = a[max(0, -down) :][:height, max(0, -right) :][:, :width].ravel()
    q = b[max(0, down) :][:height, max(0, right) :][:, :width].ravel()
    p, q = p - p.mean(), q - q.mean()
    return float(p @ q / np.sqrt((p @ p) * (q @ q) + 1e-9))


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
