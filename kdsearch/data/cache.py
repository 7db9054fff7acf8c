"""Reads a study's images once and keeps them as memory-mapped arrays by the fingerprint of their content."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdsearch.config.data import DataConfig, PhantomSource, Source, UnlabelledSource, source_name
from kdsearch.data.dataset import INFOS, Dataset
from kdsearch.data.entry import Defect, Listing
from kdsearch.data.gathering import Gathered, gather, grouped
from kdsearch.data.source import fingerprint_listing, fingerprint_phantom, list_source
from kdsearch.errors import DataError
from kdsearch.files.digests import FileDigests, digest
from kdsearch.files.schema import Schema, unchanged
from kdsearch.files.whole import lock_of, whole_folder

logger = logging.getLogger(__name__)

FORMAT = 3
"""Counts changes to how files become arrays; those of another are others."""
SCHEMA = Schema(what="cached data set", upgrades=(unchanged,))


def load_dataset(config: DataConfig, home: Path, *, whites: Sequence[float] | None = None) -> Dataset:
    """The images, from the cache if their content is known; raises DataError that lists every defect.

    ``whites`` are those of a student that is evaluated, as ``read_grey`` takes them; without, each source has its own.
    """
    listings = [None if isinstance(source, PhantomSource) else list_source(source) for source in config.sources]
    digests = FileDigests(home / "data" / "digests.json")
    fingerprint = _fingerprint(config, listings, digests, whites=whites)
    folder = home / "data" / fingerprint
    with contextlib.suppress(OSError):  # whoever may only read the cache hashes anew
        digests.keep()
    if not folder.is_dir():
        with lock_of(folder):
            if not folder.is_dir():
                gathered = gather(config.sources, listings, size=config.size, whites=whites)
                gathered.infos = grouped(gathered)
                refuse_defects(gathered.defects, config)
                _store(gathered, folder)
    dataset = _open(folder, fingerprint)
    if dataset.skipped:
        logger.warning("%d images with defects are left out: %s", len(dataset.skipped), folder / "skipped.txt")
    return dataset


def open_dataset(home: Path, fingerprint: str) -> Dataset:
    """The cached data set of that fingerprint, as a worker opens it."""
    return _open(home / "data" / fingerprint, fingerprint)


def _fingerprint(
    config: DataConfig, listings: list[Listing | None], digests: FileDigests, *, whites: Sequence[float] | None
) -> str:
    depth = [] if whites is None else [("whites", *whites)]
    return digest(FORMAT, config.size, config.on_defect, *content_of(config.sources, listings, digests), *depth)


def content_of(
    sources: Sequence[Source | UnlabelledSource], listings: Sequence[Listing | None], digests: FileDigests
) -> list[object]:
    """What stands for the content of each source, and for what it is called."""
    parts: list[object] = []
    for source, listing in zip(sources, listings, strict=True):
        if isinstance(source, PhantomSource):
            content = fingerprint_phantom(source)
        else:
            assert listing is not None
            content = fingerprint_listing(listing, digests)
        depth = None if isinstance(source, PhantomSource) else source.bits
        parts.append((source_name(source), source.reader, content, *([depth] if depth else [])))
    return parts


def refuse_defects(defects: Sequence[Defect], config: DataConfig) -> None:
    """Raises DataError that lists them, unless the study leaves such images out."""
    if defects and config.on_defect == "stop":
        listed = "\n".join(f"  {defect}" for defect in defects)
        raise DataError(
            f"{len(defects)} files cannot be used as they are:\n{listed}\n"
            "Fix them, or leave these images out: on_defect: skip in a study file's data section, --on-defect skip "
            "for kdsearch evaluate."
        )


def _store(gathered: Gathered, folder: Path) -> None:
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
