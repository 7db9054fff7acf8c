"""Reads a study's images once and keeps them as memory-mapped arrays by the fingerprint of their content."""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdsearch.config.data import DataConfig, FolderSource, PhantomSource, PublishedSource, source_name
from kdsearch.config.study import digest
from kdsearch.data.dataset import INFOS, Dataset, ImageInfo
from kdsearch.data.entry import Defect, Entry, Listing
from kdsearch.data.near_duplicates import cluster, hash_image
from kdsearch.data.phantom.simulate import simulate
from kdsearch.data.pixels import Pixels, read_grey, read_mask, resize_image, resize_mask
from kdsearch.data.source import fingerprint_listing, fingerprint_phantom, list_source
from kdsearch.errors import DataError

logger = logging.getLogger(__name__)

FORMAT = 2
"""Counts changes to how files become arrays."""
UNGROUPED_READERS = ("busi",)
"""Sets without patient numbers, whose near-duplicates are kept together instead."""


@dataclass(slots=True)
class _Gathered:
    """What has been read so far."""

    images: list[Pixels] = field(default_factory=list)
    masks: list[Pixels] = field(default_factory=list)
    infos: list[ImageInfo] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)


def load_dataset(config: DataConfig, home: Path) -> Dataset:
    """The study's images, from the cache where their content is known; raises DataError that lists every defect."""
    listings = [None if isinstance(source, PhantomSource) else list_source(source) for source in config.sources]
    fingerprint = _fingerprint(config, listings)
    folder = home / "data" / fingerprint
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


def _fingerprint(config: DataConfig, listings: list[Listing | None]) -> str:
    parts: list[object] = [FORMAT, config.size, config.on_defect]
    for source, listing in zip(config.sources, listings, strict=True):
        if isinstance(source, PhantomSource):
            content = fingerprint_phantom(source)
        else:
            assert listing is not None
            content = fingerprint_listing(listing)
        parts.append((source_name(source), source.reader, content))
    return digest(*parts)


def _gather(config: DataConfig, listings: list[Listing | None]) -> _Gathered:
    gathered = _Gathered()
    for source, listing in zip(config.sources, listings, strict=True):
        if isinstance(source, PhantomSource):
            _simulate(source, config.size, gathered)
        else:
            assert listing is not None
            _read(source, listing, config.size, gathered)
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
    infos: list[ImageInfo] = []
    hashes = []
    for entry in listing.entries:
        decoded = _decode(entry, gathered.defects)
        if decoded is None:
            continue
        image, mask = decoded
        gathered.images.append(resize_image(image, size))
        gathered.masks.append(resize_mask(mask, size))
        infos.append(ImageInfo(id=f"{name}/{entry.id}", source=name, label=entry.label, group=entry.group))
        hashes.append(hash_image(image))
    gathered.infos += _grouped(infos, cluster(hashes)) if hashes and source.reader in UNGROUPED_READERS else infos


def _decode(entry: Entry, defects: list[Defect]) -> tuple[Pixels, Pixels] | None:
    """Image and mask at their own size; None where a file of theirs was added to the defects."""
    path = entry.image
    try:
        image = read_grey(path)
        mask = np.zeros_like(image)
        for path in entry.masks:
            mask |= read_mask(path, shape=(image.shape[0], image.shape[1]))
    except DataError as error:
        defects.append(Defect(path=path, problem=str(error)))
        return None
    return image, mask


def _grouped(infos: list[ImageInfo], clusters: list[int]) -> list[ImageInfo]:
    """The same images, grouped by the first image of their cluster."""
    first: dict[int, str] = {}
    for info, number in zip(infos, clusters, strict=True):
        first.setdefault(number, info.id)
    return [
        ImageInfo(id=info.id, source=info.source, label=info.label, group=first[number])
        for info, number in zip(infos, clusters, strict=True)
    ]


def _refuse_defects(defects: list[Defect], config: DataConfig) -> None:
    if defects and config.on_defect == "stop":
        listed = "\n".join(f"  {defect}" for defect in defects)
        raise DataError(
            f"{len(defects)} files cannot be used as they are:\n{listed}\n"
            "Mend them, or leave these images out: on_defect: skip in a study file's data section, --on-defect skip "
            "for kdsearch evaluate."
        )


def _store(gathered: _Gathered, folder: Path) -> None:
    """Writes the arrays beside their final place and moves them there whole."""
    if not gathered.images:
        raise DataError("data.sources: none of the folders holds an image of a known format with a mask that fits")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        np.save(beside / "images.npy", np.stack(gathered.images))
        np.save(beside / "masks.npy", np.stack(gathered.masks))
        (beside / "infos.json").write_bytes(INFOS.dump_json(tuple(gathered.infos), indent=1))
        (beside / "skipped.txt").write_text("".join(f"{defect}\n" for defect in gathered.defects), encoding="utf-8")
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _open(folder: Path, fingerprint: str) -> Dataset:
    return Dataset(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        masks=np.load(folder / "masks.npy", mmap_mode="r"),
        infos=INFOS.validate_json((folder / "infos.json").read_bytes()),
        fingerprint=fingerprint,
        skipped=tuple((folder / "skipped.txt").read_text(encoding="utf-8").splitlines()),
    )
