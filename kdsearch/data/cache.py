"""Reads a study's images once and keeps them as memory-mapped arrays by the fingerprint of their content."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdsearch.config.data import DataConfig, FolderSource, PhantomSource, PublishedSource, source_name
from kdsearch.config.study import digest
from kdsearch.data.dataset import INFOS, Dataset, ImageInfo
from kdsearch.data.entry import Defect, Listing
from kdsearch.data.near_duplicates import cluster, hash_image
from kdsearch.data.phantom.simulate import simulate
from kdsearch.data.pixels import Pixels, read_grey, read_mask, resize_image, resize_mask
from kdsearch.data.source import fingerprint_listing, fingerprint_phantom, list_source
from kdsearch.errors import DataError

logger = logging.getLogger(__name__)

FORMAT = 1
"""Counts changes to how files become arrays."""
UNGROUPED_READERS = ("busi",)
"""Sets without patient numbers, whose near-duplicates are kept together instead."""

Progress = Callable[[int, int], None]
"""Hears how many images are done, of how many."""


@dataclass(slots=True)
class _Gathered:
    """What has been read so far."""

    images: list[Pixels] = field(default_factory=list)
    masks: list[Pixels] = field(default_factory=list)
    infos: list[ImageInfo] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)


def load_dataset(config: DataConfig, home: Path, *, progress: Progress = lambda _done, _total: None) -> Dataset:
    """The study's images, from the cache where their content is known; raises DataError that lists every defect."""
    listings = [None if isinstance(source, PhantomSource) else list_source(source) for source in config.sources]
    fingerprint = _fingerprint(config, listings)
    folder = home / "data" / fingerprint
    if not folder.is_dir():
        gathered = _gather(config, listings, progress)
        _refuse_defects(gathered.defects, config)
        _store(gathered, folder)
    return _open(folder, fingerprint)


def open_dataset(home: Path, fingerprint: str) -> Dataset:
    """The cached data set of that fingerprint, as a worker opens it."""
    return _open(home / "data" / fingerprint, fingerprint)


def _fingerprint(config: DataConfig, listings: list[Listing | None]) -> str:
    parts: list[object] = [FORMAT, config.size, config.on_defect]
    for source, listing in zip(config.sources, listings, strict=True):
        content = fingerprint_phantom(source) if isinstance(source, PhantomSource) else fingerprint_listing(listing or Listing(entries=()))
        parts.append((source_name(source), source.reader, content))
    return digest(*parts)


def _gather(config: DataConfig, listings: list[Listing | None], progress: Progress) -> _Gathered:
    gathered = _Gathered()
    total = sum(
        source.images if isinstance(source, PhantomSource) else len(listing.entries if listing else ())
        for source, listing in zip(config.sources, listings, strict=True)
    )
    done = 0
    for source, listing in zip(config.sources, listings, strict=True):
        steps = _simulate(source, config.size, gathered) if isinstance(source, PhantomSource) else None
        for _ in steps if steps is not None else _read(source, listing or Listing(entries=()), config.size, gathered):
            done += 1
            progress(done, total)
    return gathered


def _simulate(source: PhantomSource, size: int, gathered: _Gathered) -> Iterator[None]:
    for index in range(source.images):
        phantom = simulate(index, seed=source.seed)
        gathered.images.append(resize_image(phantom.image, size))
        gathered.masks.append(resize_mask(phantom.mask, size))
        name = source_name(source)
        gathered.infos.append(ImageInfo(id=f"{name}/{index:05d}", source=name, label=phantom.label, group=None))
        yield


def _read(
    source: PhantomSource | PublishedSource | FolderSource, listing: Listing, size: int, gathered: _Gathered
) -> Iterator[None]:
    name = source_name(source)
    gathered.defects += listing.defects
    hashes = []
    infos: list[ImageInfo] = []
    for entry in listing.entries:
        path = entry.image
        try:
            image = read_grey(path)
            masks = []
            for path in entry.masks:
                masks.append(read_mask([path], shape=(image.shape[0], image.shape[1])))
        except DataError as error:
            gathered.defects.append(Defect(path=path, problem=str(error)))
        else:
            mask = np.maximum.reduce([np.zeros_like(image), *masks])
            gathered.images.append(resize_image(image, size))
            gathered.masks.append(resize_mask(mask, size))
            infos.append(ImageInfo(id=f"{name}/{entry.id}", source=name, label=entry.label, group=entry.group))
            hashes.append(hash_image(image))
        yield
    gathered.infos += _grouped(infos, cluster(hashes)) if hashes and source.reader in UNGROUPED_READERS else infos


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
    if not defects:
        return
    if config.on_defect == "stop":
        listed = "\n".join(f"  {defect}" for defect in defects)
        raise DataError(
            f"{len(defects)} files cannot be used as they are:\n{listed}\n"
            "Mend them, or leave these images out with `on_defect: skip` in the study file's data section."
        )
    logger.warning("%d images with defects are left out", len(defects))


def _store(gathered: _Gathered, folder: Path) -> None:
    """Writes the arrays beside their final place and moves them there whole."""
    if not gathered.images:
        raise DataError("data.sources: no image could be read")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        np.save(beside / "images.npy", np.stack(gathered.images))
        np.save(beside / "masks.npy", np.stack(gathered.masks))
        (beside / "infos.json").write_bytes(INFOS.dump_json(tuple(gathered.infos), indent=1))
        (beside / "skipped.txt").write_text("".join(f"{defect}\n" for defect in gathered.defects), encoding="utf-8")
        os.replace(beside, folder)
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
