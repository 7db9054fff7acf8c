"""Reads a study's images once and keeps them as memory-mapped arrays by the fingerprint of their content."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.config.data import DataConfig, FolderSource, PhantomSource, PublishedSource, source_name
from kdsearch.data.dataset import ACROSS, INFOS, Dataset, ImageInfo
from kdsearch.data.entry import Defect, Entry, Listing
from kdsearch.data.near_duplicates import clusters_of, hash_image, similar_pairs, thumbnail
from kdsearch.data.phantom.simulate import simulate
from kdsearch.data.pixels import Pixels, read_grey, read_mask, resize_image, resize_mask, white_of
from kdsearch.data.source import fingerprint_listing, fingerprint_phantom, list_source
from kdsearch.errors import DataError
from kdsearch.files.digests import FileDigests, digest
from kdsearch.files.schema import Schema, unchanged
from kdsearch.files.whole import lock_of, whole_folder

logger = logging.getLogger(__name__)

FORMAT = 3
"""Counts changes to how files become arrays; those of another are others."""
SCHEMA = Schema(what="cached data set", upgrades=(unchanged,))


@dataclass(slots=True)
class _Gathered:
    """What has been read so far."""

    images: list[Pixels] = field(default_factory=list)
    masks: list[Pixels] = field(default_factory=list)
    infos: list[ImageInfo] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    looks: dict[int, tuple[npt.NDArray[np.bool_], Pixels]] = field(default_factory=dict)
    """Hash and thumbnail of images from files, by their places."""
    whites: set[float] = field(default_factory=set)


def load_dataset(config: DataConfig, home: Path) -> Dataset:
    """The study's images, from the cache where their content is known; raises DataError that lists every defect."""
    listings = [None if isinstance(source, PhantomSource) else list_source(source) for source in config.sources]
    digests = FileDigests(home / "data" / "digests.json")
    fingerprint = _fingerprint(config, listings, digests)
    folder = home / "data" / fingerprint
    with contextlib.suppress(OSError):  # whoever may only read the cache hashes anew
        digests.keep()
    if not folder.is_dir():
        with lock_of(folder):
            if not folder.is_dir():
                gathered = _gather(config, listings)
                _refuse_defects(gathered.defects, config)
                _store(gathered, folder)
    dataset = _open(folder, fingerprint)
    if dataset.skipped:
        logger.warning("%d images with defects are left out: %s", len(dataset.skipped), folder / "skipped.txt")
    return dataset


def open_dataset(home: Path, fingerprint: str) -> Dataset:
    """The cached data set of that fingerprint, as a worker opens it."""
    return _open(home / "data" / fingerprint, fingerprint)


def _fingerprint(config: DataConfig, listings: list[Listing | None], digests: FileDigests) -> str:
    parts: list[object] = [FORMAT, config.size, config.on_defect]
    for source, listing in zip(config.sources, listings, strict=True):
        if isinstance(source, PhantomSource):
            content = fingerprint_phantom(source)
        else:
            assert listing is not None
            content = fingerprint_listing(listing, digests)
        depth = None if isinstance(source, PhantomSource) else source.bits
        parts.append((source_name(source), source.reader, content, *([depth] if depth else [])))
    return digest(*parts)


def _gather(config: DataConfig, listings: list[Listing | None]) -> _Gathered:
    gathered = _Gathered()
    for source, listing in zip(config.sources, listings, strict=True):
        if isinstance(source, PhantomSource):
            _simulate(source, config.size, gathered)
        else:
            assert listing is not None
            _read(source, listing, config.size, gathered)
    gathered.infos = _grouped(gathered)
    return gathered


def _simulate(source: PhantomSource, size: int, gathered: _Gathered) -> None:
    for index in range(source.images):
        phantom = simulate(index, seed=source.seed)
        gathered.images.append(resize_image(phantom.image, size))
        gathered.masks.append(resize_mask(phantom.mask, size))
        info = ImageInfo(id=f"{source.name}/{index:05d}", source=source.name, label=phantom.label, group=None)
        gathered.infos.append(info)


def _read(source: PublishedSource | FolderSource, listing: Listing, size: int, gathered: _Gathered) -> None:
    name = source_name(source)
    gathered.defects += listing.defects
    white = white_of((entry.image for entry in listing.entries), bits=source.bits)
    whites = () if white is None else (white,)
    gathered.whites |= set(whites)
    for entry in listing.entries:
        decoded = _decode(entry, gathered.defects, whites=whites)
        if decoded is None:
            continue
        image, mask = decoded
        gathered.looks[len(gathered.images)] = hash_image(image), thumbnail(image)
        gathered.images.append(resize_image(image, size))
        gathered.masks.append(resize_mask(mask, size))
        gathered.infos.append(ImageInfo(id=f"{name}/{entry.id}", source=name, label=entry.label, group=entry.group))


def _decode(entry: Entry, defects: list[Defect], *, whites: tuple[float, ...]) -> tuple[Pixels, Pixels] | None:
    """Image and mask at their own size; None where a file of theirs was added to the defects."""
    path = entry.image
    try:
        image = read_grey(path, whites=whites)
        mask = np.zeros_like(image)
        for path in entry.masks:
            mask |= read_mask(path, shape=(image.shape[0], image.shape[1]))
    except DataError as error:
        defects.append(Defect(path=path, problem=str(error)))
        return None
    return image, mask


def _grouped(gathered: _Gathered) -> list[ImageInfo]:
    """The images, near-duplicates in one group wherever none is given, and across sources.

    Within a source that names its groups, such as patients, those are trusted.
    """
    infos, places = gathered.infos, list(gathered.looks)
    trusted = all(infos[place].group for place in places) and len({infos[place].source for place in places}) == 1
    if not places or trusted:
        return infos
    hashes, thumbnails = zip(*gathered.looks.values(), strict=True)
    pairs = [(places[a], places[b]) for a, b in similar_pairs(hashes, thumbnails)]
    pairs = [(a, b) for a, b in pairs if infos[a].source != infos[b].source or not (infos[a].group and infos[b].group)]
    first: dict[tuple[str, str], int] = {}
    for place, info in enumerate(infos):
        if info.group is not None:
            pairs.append((first.setdefault((info.source, info.group), place), place))
    named = _named(infos, clusters_of(len(infos), pairs))
    return [named[place] if place in gathered.looks else info for place, info in enumerate(infos)]


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


def _refuse_defects(defects: list[Defect], config: DataConfig) -> None:
    if defects and config.on_defect == "stop":
        listed = "\n".join(f"  {defect}" for defect in defects)
        raise DataError(
            f"{len(defects)} files cannot be used as they are:\n{listed}\n"
            "Fix them, or leave these images out: on_defect: skip in a study file's data section, --on-defect skip "
            "for kdsearch evaluate."
        )


def _store(gathered: _Gathered, folder: Path) -> None:
    """Writes the arrays, or raises DataError where there are none."""
    if not gathered.images:
        raise DataError("data.sources: none of the folders holds an image of a known format with a mask that fits")
    with whole_folder(folder) as beside:
        np.save(beside / "images.npy", np.stack(gathered.images))
        np.save(beside / "masks.npy", np.stack(gathered.masks))
        (beside / "infos.json").write_bytes(INFOS.dump_json(tuple(gathered.infos), indent=1))
        depth = SCHEMA.stamped({"whites": sorted(gathered.whites)})
        (beside / "depth.json").write_text(json.dumps(depth), encoding="utf-8")
        (beside / "skipped.txt").write_text("".join(f"{defect}\n" for defect in gathered.defects), encoding="utf-8")


def _open(folder: Path, fingerprint: str) -> Dataset:
    depth = SCHEMA.upgraded(json.loads((folder / "depth.json").read_text(encoding="utf-8")))
    return Dataset(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        masks=np.load(folder / "masks.npy", mmap_mode="r"),
        infos=INFOS.validate_json((folder / "infos.json").read_bytes()),
        fingerprint=fingerprint,
        whites=tuple(depth["whites"]),
        skipped=tuple((folder / "skipped.txt").read_text(encoding="utf-8").splitlines()),
    )
