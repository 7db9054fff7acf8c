"""Decodes a study's sources into arrays, and groups images that belong together."""

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

from kdsearch.config.sources import (
    FileSource,
    ImagesSource,
    PhantomSource,
    Source,
    UnlabelledSource,
    source_name,
    threshold_of,
)
from kdsearch.data.dataset import ACROSS, ImageInfo
from kdsearch.data.frame import Frame
from kdsearch.data.layout import Defect, Entry, Listing
from kdsearch.data.masks import MaskError, SourceMasks
from kdsearch.data.phantom import phantom_of
from kdsearch.data.pixels import (
    AmbiguousError,
    Pixels,
    colored_fraction,
    gray_of,
    orientation_of,
    to_pixels,
    white_of,
)
from kdsearch.data.way import Way
from kdsearch.errors import DataError

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

DIFFERENCE_BITS, HASH_BITS = 256, 320
MAX_DIFFERENCE_BITS = 30
"""Limit for the 256-bit difference hash. Different images of BUSI differ in at least 32 bits; halving a JPEG's
resolution changes 16."""
MAX_PERCEPTUAL_BITS = 8
"""Limit for the 64-bit perceptual hash."""
MAX_BITS_IF_NAMED_ALIKE = 45, 12
"""Both limits if the file names or groups match too; they tolerate a crop of 2 % on each side."""
ROWS = 1024
"""Number of images that are compared at once."""
THUMBNAIL = 64
"""Height and width, in pixels, of the thumbnails that are correlated."""
MAX_SHIFT = 8
"""In pixels of a thumbnail."""
LEAST_CORRELATION = 0.95
"""Limit for the overlap. On BUSI, all 36 pairs above it that the hashes miss show one scan; below it some do not."""
WORTH_A_LOOK = 0.75
"""Limit for the circular correlation, a fast first test."""


def hash_image(image: Pixels) -> Bools:
    """Computes the 256-bit difference hash and the 64-bit perceptual hash of an H×W gray image: 320 bits.

    The first records where gray values rise from left to right, the second which of the lowest 8×8
    cosine coefficients exceed their median. Both equal those of the package ImageHash.
    """
    whole = Image.fromarray(image)
    small, large = (np.asarray(whole.resize(size, Image.Resampling.LANCZOS)) for size in ((17, 16), (32, 32)))
    waves = fft.dctn(large.astype(np.float64))[:8, :8]
    return np.concatenate([(small[:, 1:] > small[:, :-1]).ravel(), (waves > np.median(waves)).ravel()])


def thumbnail(image: Pixels) -> Pixels:
    """Resizes an image to 64×64."""
    return np.asarray(Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR))


def are_near(hashes: Bools, known: Bools, *, named_alike: bool = False) -> Bools:
    """Returns N booleans: whether each of N×320 hashes is close to one of the known M×320 hashes."""
    if not len(known):
        return np.zeros(len(hashes), dtype=np.bool_)
    parts = (
        _near(hashes[start : start + ROWS], known, named_alike=named_alike) for start in range(0, len(hashes), ROWS)
    )
    return np.concatenate([part.any(axis=1) for part in parts])


def similar_pairs(hashes: Sequence[Bools], thumbnails: Sequence[Pixels]) -> list[tuple[int, int]]:
    """Finds near-duplicates: pairs whose hashes are close, or whose thumbnails correlate after a small shift."""
    bits = np.stack(hashes)
    pairs = {(int(a), int(b)) for a, b in np.argwhere(np.triu(_near(bits, bits), k=1))}
    stack = np.stack(thumbnails).astype(np.float32)
    pairs |= {(a, b) for a, b, shift in _candidates(stack) if _correlation(stack[a], stack[b], shift)}
    return sorted(pairs)


def clusters_of(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Returns the cluster number of each of ``count`` positions; the positions of a pair share a cluster."""
    edges = np.array([*pairs, *((index, index) for index in range(count))], dtype=np.int64).reshape(-1, 2)
    graph = csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, clusters = connected_components(graph, directed=False)
    return [int(number) for number in clusters]


def _near(a: Bools, b: Bools, *, named_alike: bool = False) -> Bools:
    """Compares N×320 with M×320 hashes; N×M, true if both parts are close."""
    most = MAX_BITS_IF_NAMED_ALIKE if named_alike else (MAX_DIFFERENCE_BITS, MAX_PERCEPTUAL_BITS)
    differ = _distances(a[:, :DIFFERENCE_BITS], b[:, :DIFFERENCE_BITS]) <= most[0]
    return np.asarray(differ & (_distances(a[:, DIFFERENCE_BITS:], b[:, DIFFERENCE_BITS:]) <= most[1]))


def _distances(a: Bools, b: Bools) -> Floats:
    """Counts differing bits, N×M; float32 for speed."""
    ones, others = a.sum(axis=1, dtype=np.float32), b.sum(axis=1, dtype=np.float32)
    return np.asarray(ones[:, None] + others[None, :] - 2 * (a.astype(np.float32) @ b.T.astype(np.float32)))


def _candidates(stack: Floats) -> Iterable[tuple[int, int, tuple[int, int]]]:
    """Finds pairs with a high circular cross-correlation at a small shift, and that shift (down, right)."""
    centered = stack - stack.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt(np.square(centered).sum(axis=(1, 2), keepdims=True))
    spectra = fft.rfft2(centered / np.maximum(norms, 1e-6))
    around = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
    for index in range(len(stack) - 1):
        correlations = fft.irfft2(spectra[index + 1 :] * np.conj(spectra[index]), s=stack.shape[1:])
        near = correlations[:, around][:, :, around].reshape(len(correlations), -1)
        for other in np.flatnonzero(near.max(axis=1) > WORTH_A_LOOK):
            down, right = np.unravel_index(near[other].argmax(), (len(around), len(around)))
            yield index, index + 1 + int(other), (int(around[down]), int(around[right]))


def _correlation(a: Floats, b: Floats, shift: tuple[int, int]) -> bool:
    """Returns whether the overlap of two thumbnails correlates within one pixel of the shift."""
    return any(
        _overlap(a, b, down, right) >= LEAST_CORRELATION
        for down in range(shift[0] - 1, shift[0] + 2)
        for right in range(shift[1] - 1, shift[1] + 2)
    )


def _overlap(a: Floats, b: Floats, down: int, right: int) -> float:
    """Computes the normalized cross-correlation of the overlap, with b moved back by the shift."""
    height, width = a.shape[0] - abs(down), a.shape[1] - abs(right)
    p = a[max(0, -down) :][:height, max(0, -right) :][:, :width].ravel()
    q = b[max(0, down) :][:height, max(0, right) :][:, :width].ravel()
    p, q = p - p.mean(), q - q.mean()
    return float(p @ q / np.sqrt((p @ p) * (q @ q) + 1e-9))


COLORED = 0.05
"""Fraction of an image's pixels above which it is colored, and does not only have colored marks."""
STEP = 16
"""Step between the sizes that are tried for a small lesion."""
LARGEST = 1024
"""Upper limit of ``data.size``."""


@dataclass(slots=True)
class Gathered:
    """The images that were read, and what was found wrong."""

    images: list[Pixels] = field(default_factory=list)
    masks: list[Pixels] = field(default_factory=list)
    infos: list[ImageInfo] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    looks: dict[int, tuple[npt.NDArray[np.bool_], Pixels]] = field(default_factory=dict)
    """Hash and thumbnail of images from files, by position."""
    whites: set[float] = field(default_factory=set)
    shrunk: dict[str, int | None] = field(default_factory=dict)
    """Images of which a class would vanish, and the smallest size that keeps it (None: no size)."""
    rotated: list[str] = field(default_factory=list)
    """Images whose EXIF orientation differs from that of their masks."""
    colored: list[str] = field(default_factory=list)
    """Images of which a large part is colored."""
    resized: list[str] = field(default_factory=list)
    """Images whose masks have another size."""
    kin: dict[int, str] = field(default_factory=dict)
    """What tells groups apart across sources, by position; never stored."""
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Top, left, bottom and right of each image within its padding."""
    differs: bool = False
    """Whether releases that stored no ``Reading`` read these files differently."""

    def keep(self, info: ImageInfo, image: Pixels, mask: Pixels, frame: Frame) -> None:
        """Adds an image, and its mask H×W in class numbers; each class keeps at least one pixel."""
        small = frame.mask(mask)
        if lost := frame.lost(mask, small):
            small = small.copy()
            for number in lost:
                small[frame.one_pixel(mask, number)] = number
            self.shrunk[info.id] = _least_size(mask, frame)
            self.differs = True
        rows, columns = frame.box(mask.shape)
        self.boxes.append((rows.start, columns.start, rows.stop, columns.stop))
        self.masks.append(small)
        self.images.append(frame.image(image))
        self.infos.append(info)


def _least_size(mask: Pixels, frame: Frame) -> int | None:
    """Finds the smallest height that keeps every class at the frame's proportions; None if there is none."""
    start = frame.height - frame.height % STEP + STEP
    for height in range(start, LARGEST + 1, STEP):
        larger = Frame(height=height, width=round(frame.width * height / frame.height), pads=frame.pads)
        if not larger.lost(mask, larger.mask(mask)):
            return height
    return None


def gather(
    sources: Sequence[Source | UnlabelledSource],
    listings: Sequence[Listing | None],
    *,
    way: Way,
    whites: Sequence[float] | None = None,
) -> Gathered:
    """Reads all images except defective ones; a simulated source has no listing.

    ``whites`` replace each source's own white value.
    """
    gathered = Gathered()
    for source, listing in zip(sources, listings, strict=True):
        if isinstance(source, PhantomSource):
            _simulate(source, way, gathered)
        else:
            assert listing is not None, "a source of files has a listing"
            _read(source, listing, way, gathered, whites=whites)
    return gathered


def _simulate(source: PhantomSource, way: Way, gathered: Gathered) -> None:
    for index in range(source.images):
        phantom = phantom_of(source, index)
        info = ImageInfo(id=f"{source.name}/{index:05d}", source=source.name, label=phantom.label, group=None)
        gathered.keep(info, phantom.pixels(way.channels), phantom.mask, way.frame)


def _read(
    source: FileSource | ImagesSource,
    listing: Listing,
    way: Way,
    gathered: Gathered,
    *,
    whites: Sequence[float] | None,
) -> None:
    name = source_name(source)
    gathered.defects += listing.defects
    if whites is None:
        white = white_of(((entry.image, entry.frame) for entry in listing.entries), bits=source.bits)
        whites = () if white is None else (white,)
    gathered.whites |= set(whites)
    masks = SourceMasks(
        (path for entry in listing.entries for path in entry.masks), threshold=threshold_of(source), numbers=way.numbers
    )
    for entry in listing.entries:
        read = _decode(entry, gathered, channels=way.channels, whites=whites, masks=masks)
        if read is None:
            continue
        image, mask, colored = read
        if colored:
            gathered.colored.append(f"{name}/{entry.id}")
        gathered.looks[len(gathered.images)] = hash_image(gray_of(image)), thumbnail(gray_of(image))
        if entry.kin is not None:
            gathered.kin[len(gathered.images)] = entry.kin
        info = ImageInfo(id=f"{name}/{entry.id}", source=name, label=entry.label, group=entry.group, part=entry.part)
        gathered.keep(info, image, mask, way.frame)
        turned = [orientation_of(path) for path in (entry.image, *entry.masks)]
        gathered.differs |= any(one > 1 for one in turned)
        if len(set(turned)) > 1 and masks.turned.isdisjoint(entry.masks):
            gathered.rotated.append(f"{name}/{entry.id}")
        if not masks.resized.isdisjoint(entry.masks):
            gathered.resized.append(f"{name}/{entry.id}")
    masks.require_one_coding(name)
    gathered.differs |= masks.recoded or bool(masks.resized)


def _decode(
    entry: Entry, gathered: Gathered, *, channels: int, whites: Sequence[float], masks: SourceMasks
) -> tuple[Pixels, Pixels, bool] | None:
    """Reads image and mask at their original resolution, and whether the image is colored.

    Adds an unreadable file to the defects and returns None.
    """
    try:
        found = entry.picture()
        image = to_pixels(found, channels=channels, whites=whites)
        mask = masks.of(entry, shape=(image.shape[0], image.shape[1]))
    except DataError as error:
        path, cause = (error.path, error.cause) if isinstance(error, MaskError) else (entry.image, error)
        gathered.defects.append(Defect(path=path, problem=str(cause)))
        gathered.differs |= isinstance(cause, AmbiguousError)
        return None
    return image, mask, colored_fraction(found) > COLORED


def grouped(gathered: Gathered) -> list[ImageInfo]:
    """Groups near-duplicates, within sources that name no groups and across sources.

    Within a source that names groups, such as patients, those are used unchanged.
    """
    named = _named(gathered.infos, clusters(gathered))
    return [named[place] if place in gathered.looks else info for place, info in enumerate(gathered.infos)]


def clusters(gathered: Gathered, *, shared: Collection[str] = ()) -> list[int]:
    """Returns the cluster number of each image: clusters join groups and near-duplicates.

    Groups with the same name are one group in the sources ``shared``, and different groups in all others.
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
    pairs += [(first.setdefault(("kin", kin), place), place) for place, kin in gathered.kin.items()]
    for place, info in enumerate(infos):
        if info.group is not None:
            whose = "" if info.source in shared else info.source
            pairs.append((first.setdefault((whose, info.group), place), place))
    return clusters_of(len(infos), pairs)


def _named(infos: list[ImageInfo], clusters: list[int]) -> list[ImageInfo]:
    """Sets the group of each image to its cluster, named after a given group or after its first image."""
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
