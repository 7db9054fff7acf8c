"""Inspects each image and mask of a study's sources, and lists what a person should check."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from kdsearch.config.data import DataConfig
from kdsearch.config.sources import PhantomSource, source_name, threshold_of
from kdsearch.data.dataset import ACROSS, ImageInfo, foreground_of, group_of
from kdsearch.data.gathering import COLORED
from kdsearch.data.layout import Entry
from kdsearch.data.masks import SourceMasks
from kdsearch.data.pixels import colored_fraction
from kdsearch.data.source import list_source
from kdsearch.errors import DataError

Mask = npt.NDArray[np.bool_]

COLORED_FRACTION = 0.0005
"""Fraction of colored pixels above which an image is reported; fewer are JPEG artifacts."""
SPECK = 0.02
"""A part of a mask below this fraction of the lesion's area is a speck."""
HOLE = 0.001
"""Holes below this fraction of the lesion's area are ignored."""
BORDER = 0.02
"""Fraction of the image's border above which a mask is reported to touch it."""
NEARLY_ALL = 0.6
NEARLY_NOTHING = 0.001
"""Fractions of the image's area."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLook:
    """Properties of one image and its mask at their original resolution."""

    info: ImageInfo
    height: int
    width: int
    mode: str
    """Pillow's mode of the file."""
    mask_files: int
    area: float
    """Area of the lesion as a fraction of the image."""
    parts: int
    """Connected parts of the mask, without specks."""
    specks: int
    holes: int
    border: float
    """Fraction of the image's border that is in the mask."""
    colored: float
    """Fraction of colored pixels."""
    transparent: float
    """Fraction of transparent pixels."""
    classes: tuple[float, ...] = ()
    """Area of each class other than the background as a fraction of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Images with one thing in common that a person should check."""

    what: str
    images: tuple[tuple[str, ...], ...]
    """Ids of images; related images, such as near-duplicates, share a tuple."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids in one tuple."""
        return tuple(name for together in self.images for name in together)


SOME = 40
"""Images of a source that ``colored_images`` opens."""


def colored_images(config: DataConfig) -> tuple[int, int]:
    """Counts the colored images among some of each source's, and these images; ignores what cannot be read."""
    colored, seen = 0, 0
    for source in config.sources:
        if isinstance(source, PhantomSource):
            continue
        with contextlib.suppress(DataError):
            entries = list_source(source).entries
            for entry in entries[:: max(1, len(entries) // SOME)][:SOME]:
                with contextlib.suppress(DataError):
                    colored += colored_fraction(entry.picture()) > COLORED
                    seen += 1
    return colored, seen


def look(config: DataConfig, infos: Sequence[ImageInfo]) -> Iterator[ImageLook]:
    """Inspects each image of ``infos`` that came from a file."""
    known = {info.id: info for info in infos}
    for source in config.sources:
        if isinstance(source, PhantomSource):
            continue
        entries = list_source(source).entries
        masks = SourceMasks(
            (path for entry in entries for path in entry.masks),
            threshold=threshold_of(source),
            numbers=config.class_numbers,
        )
        for entry in entries:
            info = known.get(f"{source_name(source)}/{entry.id}")
            if info is not None:
                yield _look(entry, info, masks)


def _look(entry: Entry, info: ImageInfo, masks: SourceMasks) -> ImageLook:
    try:
        image = entry.picture()
        classes = masks.of(entry, shape=(image.height, image.width))
    except DataError as error:
        raise DataError(f"{entry.image}: {error}") from error
    mask = foreground_of(classes)
    parts, specks = _parts(mask)
    return ImageLook(
        info=info,
        height=image.height,
        width=image.width,
        mode=image.mode,
        mask_files=len(entry.masks),
        area=float(mask.mean()),
        parts=parts,
        specks=specks,
        holes=_holes(mask),
        border=float(np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean()),
        colored=colored_fraction(image),
        transparent=_transparent(image),
        classes=tuple(float((classes == number).mean()) for number in range(1, masks.most_classes + 1)),
    )


def _transparent(image: Image.Image) -> float:
    """Returns which fraction of an image's pixels is transparent."""
    if image.mode not in ("RGBA", "P"):
        return 0.0
    return float((np.asarray(image.convert("RGBA"))[..., 3] == 0).mean())


def _parts(mask: Mask) -> tuple[int, int]:
    """Counts the mask's large connected parts, and its specks."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    specks = int((sizes < SPECK * sizes.sum()).sum())
    return count - specks, specks


def _holes(mask: Mask) -> int:
    labels, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return int((sizes > HOLE * mask.sum()).sum())


def findings(looks: Sequence[ImageLook], *, channels: int = 1) -> tuple[Finding, ...]:
    """Lists what a person should check, the most serious first; ``channels`` are the study's."""
    doubles = _doubles(looks)
    across = [together for together in doubles if len({look.info.label for look in together}) > 1]
    alone = (
        ("masks that touch the image's border", [look for look in looks if look.border > BORDER]),
        ("masks with specks", [look for look in looks if look.specks]),
        ("masks with holes", [look for look in looks if look.holes]),
        ("masks with several parts", [look for look in looks if look.parts > 1]),
        ("masks in several files, which were merged", [look for look in looks if look.mask_files > 1]),
        (f"masks over {NEARLY_ALL:.0%} of the image", [look for look in looks if look.area > NEARLY_ALL]),
        (f"masks under {NEARLY_NOTHING:.1%} of the image", [look for look in looks if 0 < look.area < NEARLY_NOTHING]),
        (
            "images with colored pixels, such as burned-in measurements",
            _by(looks, "colored", COLORED_FRACTION) if channels == 1 else [],
        ),
        ("images with transparent pixels, which are read as black", _by(looks, "transparent", 0.0)),
        ("negative images", [look for look in looks if not look.area]),
    )
    found = [
        Finding(what="near-duplicates with different labels", images=_ids(across)),
        *(Finding(what=what, images=tuple((look.info.id,) for look in some)) for what, some in alone),
        Finding(what="near-duplicates, which every split keeps in one part", images=_ids(doubles)),
    ]
    return tuple(one for one in found if one.images)


def _by(looks: Iterable[ImageLook], name: str, least: float) -> list[ImageLook]:
    chosen = [look for look in looks if getattr(look, name) > least]
    return sorted(chosen, key=lambda look: (-getattr(look, name), look.info.id))


def _doubles(looks: Sequence[ImageLook]) -> list[list[ImageLook]]:
    """Finds groups of near-duplicates, which are named by their first image."""
    groups: dict[str, list[ImageLook]] = defaultdict(list)
    for one in looks:
        groups[group_of(one.info)].append(one)
    ids = {one.info.id for one in looks}
    return [
        together
        for together in groups.values()
        if len(together) > 1 and (together[0].info.group or "").removeprefix(ACROSS) in ids
    ]


def _ids(groups: Iterable[Sequence[ImageLook]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(look.info.id for look in together) for together in groups)


def composition(looks: Sequence[ImageLook]) -> list[tuple[str, ...]]:
    """Returns a table with a row for each source and label: images, groups, image sizes, lesion areas."""
    rows: list[tuple[str, ...]] = [("source", "label", "images", "groups", "size, pixels", "lesion area %, 5–50–95 %")]
    counted = Counter((look.info.source, look.info.label or "") for look in looks)
    for source, label in sorted(counted):
        here = [look for look in looks if (look.info.source, look.info.label or "") == (source, label)]
        areas = np.array([look.area for look in here if look.area])
        spread = "–".join(f"{100 * value:.1f}" for value in np.quantile(areas, [0.05, 0.5, 0.95])) if areas.size else ""
        sizes = f"{_range(look.width for look in here)} × {_range(look.height for look in here)}"
        groups = len({group_of(look.info) for look in here})
        rows.append((source, label, str(len(here)), str(groups), sizes, spread))
    return rows


def class_rows(looks: Sequence[ImageLook], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns a table with a row for each of several classes: the images that show it, and its area in them."""
    rows: list[tuple[str, ...]] = [("class", "images", "area %, 5–50–95 %")]
    for place, name in enumerate(names):
        areas = np.array([look.classes[place] for look in looks if look.classes[place]])
        spread = "–".join(f"{100 * value:.1f}" for value in np.quantile(areas, [0.05, 0.5, 0.95])) if areas.size else ""
        rows.append((name, str(areas.size), spread))
    return rows


def _range(values: Iterable[int]) -> str:
    found = list(values)
    return str(found[0]) if min(found) == max(found) else f"{min(found)}–{max(found)}"
