"""Reads a study's images once, and caches them as memory-mapped arrays by the fingerprint of their content."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Collection, Sequence, Sized
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter

from kdsearch.config.data import DataConfig
from kdsearch.config.sources import (
    FolderSource,
    ImagesSource,
    PhantomSource,
    Source,
    UnlabelledSource,
    source_name,
    threshold_of,
)
from kdsearch.config.task import IGNORED
from kdsearch.data.dataset import (
    Dataset,
    Splits,
    UnlabelledImages,
    UnlabelledPart,
    UnlabelledPlace,
    dump_infos,
    read_infos,
)
from kdsearch.data.gathering import Gathered, clusters, gather, grouped
from kdsearch.data.layout import Listing, passed_over, shown
from kdsearch.data.masks import refuse_defects
from kdsearch.data.native import Reading, keep_reading, known_reading
from kdsearch.data.pixels import Pixels
from kdsearch.data.source import (
    fingerprint_listing,
    fingerprint_phantom,
    list_source,
    list_unlabelled,
    require_same_classes,
)
from kdsearch.data.way import Way
from kdsearch.errors import DataError, KdsearchError, first_line
from kdsearch.files.atomic import atomic_folder, lock_of, remove_leftovers
from kdsearch.files.digests import FileDigests, digest
from kdsearch.files.home import using_home
from kdsearch.files.schema import Schema, unchanged

logger = logging.getLogger(__name__)

C = TypeVar("C", Dataset, UnlabelledImages)

FORMAT = 3
"""Incremented with each change to how files are read; part of every fingerprint."""
FORMER = {"error": "stop", "skip": "skip"}
"""Digests use the former values of ``on_invalid``, so that data cached before the renaming is found."""
READING = 1
"""Incremented with changes that affect few data sets; part of only their fingerprints."""
NAMED = 5
"""An error lists at most this many files."""
SCHEMA = Schema(what="cached data set", upgrades=(unchanged, unchanged))


def load_dataset(
    config: DataConfig, home: Path, *, stored: str | None = None, whites: Sequence[float] | None = None
) -> Dataset:
    """Loads the study's images, from the cache if their content is unchanged; raises DataError with all defects.

    ``stored`` is the fingerprint of the images of existing trials. If an older release cached arrays of
    these files under it, commands that only read results open those. ``whites`` belong to a student that
    is evaluated (see ``read_gray``). Default: each source's own.
    """
    listings = [None if isinstance(source, PhantomSource) else list_source(source) for source in config.sources]
    require_same_classes(config, listings)
    with using_home(home):
        remove_leftovers(home / "data", now=time.time())
        digests = FileDigests(home / "data" / "digests.json")
        depth = [] if whites is None else [("whites", *whites)]
        content = content_of(config.sources, listings, digests)
        files = digest(FORMAT, config.size, FORMER[config.on_invalid], *content, *depth, *Way.of(config).identity())
        with contextlib.suppress(OSError):  # a user who cannot write to the cache hashes the files each time
            digests.keep()
        dataset = _opened(home, files, config, stored=stored)
        if dataset is None:
            with lock_of(home / "data" / files):
                dataset = _opened(home, files, config, stored=stored) or _made(
                    config, listings, home, files, whites=whites
                )
    left_out = tuple(one for listing in listings if listing is not None for one in passed_over(listing))
    if dataset.skipped:
        place = home / "data" / dataset.fingerprint / "skipped.txt"
        logger.warning("%d images with defects are left out: %s", len(dataset.skipped), place)
    return dataclasses.replace(dataset, remarks=(*left_out, *dataset.remarks))


def _opened(home: Path, files: str, config: DataConfig, *, stored: str | None) -> Dataset | None:
    """Opens the cached images of these files; None if there are none or they are damaged."""
    folder = home / "data" / files
    if stored == files and folder.is_dir() and (old := _intact_dataset(folder)) is not None:
        return old
    reading = known_reading(home, files)
    if reading is None:
        return None
    dataset = _intact_dataset(home / "data" / reading.data)
    return None if dataset is None else dataclasses.replace(dataset, remarks=reading.remarks(config))


def _intact(folder: Path, opened: Callable[[Path], C], parts: Callable[[C], tuple[Sized, ...]]) -> C | None:
    """Opens a cached folder; returns None if it does not exist or is damaged.

    ``parts`` returns arrays that must have the same length.
    """
    if not folder.is_dir():
        return None
    try:
        found = opened(folder)
        if len({len(part) for part in parts(found)}) == 1:
            return found
        why = "its files hold different numbers of images"
    except (OSError, EOFError, ValueError, LookupError, KdsearchError) as error:
        why = first_line(error)
    logger.warning("the cached images in %s are damaged (%s) and will be rebuilt", folder, why)
    return None


def _intact_dataset(folder: Path) -> Dataset | None:
    return _intact(folder, _open, lambda dataset: (dataset.images, dataset.masks, dataset.infos))


def _made(
    config: DataConfig, listings: list[Listing | None], home: Path, files: str, *, whites: Sequence[float] | None
) -> Dataset:
    """Reads the files, then caches the arrays, unless an older release cached the same, and the remarks."""
    gathered = gather(config.sources, listings, way=Way.of(config), whites=whites)
    gathered.infos = grouped(gathered)
    refuse_defects(gathered.defects, config)
    _require_images(config, listings, gathered)
    fingerprint = digest(files, "read since", READING) if gathered.differs else files
    folder = home / "data" / fingerprint
    dataset = _intact_dataset(folder)
    if dataset is None:
        _store(gathered, folder, config)
        dataset = _open(folder)
    reading = Reading(
        data=fingerprint,
        shrunk=gathered.shrunk,
        rotated=tuple(gathered.rotated),
        colored=tuple(gathered.colored),
        resized=tuple(gathered.resized),
        images=len(gathered.infos),
    )
    keep_reading(home, files, reading)
    return dataclasses.replace(dataset, remarks=reading.remarks(config))


def open_dataset(home: Path, fingerprint: str) -> Dataset:
    """Opens the cached data set with this fingerprint, for a worker."""
    return _open(home / "data" / fingerprint)


def content_of(
    sources: Sequence[Source | UnlabelledSource], listings: Sequence[Listing | None], digests: FileDigests
) -> list[object]:
    """Returns what identifies each source: its name, its reader and its content."""
    parts: list[object] = []
    for source, listing in zip(sources, listings, strict=True):
        if isinstance(source, PhantomSource):
            content = fingerprint_phantom(source)
        else:
            assert listing is not None
            content = fingerprint_listing(listing, digests)
        depth, threshold = None if isinstance(source, PhantomSource) else source.bits, threshold_of(source)
        settings = [*([depth] if depth else []), *([("threshold", threshold)] if threshold is not None else [])]
        parts.append((source_name(source), source.reader, content, *settings))
    return parts


def _require_images(config: DataConfig, listings: list[Listing | None], gathered: Gathered) -> None:
    for source, listing in zip(config.sources, listings, strict=True):
        if listing is None or any(info.source == source_name(source) for info in gathered.infos):
            continue
        folders = ", ".join(shown(folder) for folder in listing.folders)
        there = "; ".join(f"{one}: {', '.join(one.names[:NAMED])}" for one in passed_over(listing))
        defects = f"; {len(listing.defects)} files have defects" if listing.defects else ""
        raise DataError(
            f"data.sources: source {source_name(source)}: no usable image in {folders}; expected {listing.wanted}; "
            f"found {there or 'no other files'}{defects}"
        )


def _stacked(images: Sequence[Pixels]) -> Pixels:
    """Stacks gray images as N×H×W, as older releases do, and color images as N×3×H×W."""
    stack = np.stack(images)
    return stack if stack.ndim == 3 else np.ascontiguousarray(stack.transpose(0, 3, 1, 2))


def _with_channels(images: Pixels) -> Pixels:
    """Returns N×C×H×W of stored images."""
    return images if images.ndim == 4 else images[:, None]


def _store(gathered: Gathered, folder: Path, config: DataConfig) -> None:
    """Writes the arrays; replaces a damaged folder."""
    masks = np.stack(gathered.masks)
    with atomic_folder(folder, replace=True) as beside:
        np.save(beside / "images.npy", _stacked(gathered.images))
        np.save(beside / "masks.npy", masks)
        (beside / "infos.json").write_bytes(dump_infos(gathered.infos))
        facts = {
            "whites": sorted(gathered.whites),
            "classes": config.foreground if config.task.outputs > 1 else (),
            "ignores": bool((masks == IGNORED).any()),
            "pads": config.fit == "pad",
        }
        depth = SCHEMA.stamped(facts)
        (beside / "depth.json").write_text(json.dumps(depth), encoding="utf-8")
        (beside / "skipped.txt").write_text("".join(f"{defect}\n" for defect in gathered.defects), encoding="utf-8")


def _open(folder: Path) -> Dataset:
    depth = SCHEMA.upgraded(json.loads((folder / "depth.json").read_text(encoding="utf-8")))
    masks = np.load(folder / "masks.npy", mmap_mode="r")
    return Dataset(
        images=_with_channels(np.load(folder / "images.npy", mmap_mode="r")),
        masks=masks if "classes" in depth else np.minimum(masks, 1),  # older releases wrote 255 inside a lesion
        infos=read_infos((folder / "infos.json").read_bytes()),
        fingerprint=folder.name,
        classes=tuple(depth.get("classes", ())),
        ignores=depth.get("ignores", False),
        pads=depth.get("pads", False),
        whites=tuple(depth["whites"]),
        skipped=tuple((folder / "skipped.txt").read_text(encoding="utf-8").splitlines()),
    )


TOGETHER_SCHEMA = Schema(what="list of images that belong together", upgrades=(unchanged,))
_TOGETHER = TypeAdapter(tuple[tuple[str, ...], ...])


def load_unlabelled(config: DataConfig, home: Path, dataset: Dataset, splits: Splits) -> UnlabelledPart | None:
    """Loads the study's unlabelled images for a split, from the cache if their content is unchanged.

    Leaves out near-duplicates of validation and test images and, in plain folders, images whose group has
    the same name. Returns None if the study has no unlabelled sources. Raises DataError with all defects,
    or if no image can be used.
    """
    if not config.unlabelled:
        return None
    listings = [None if isinstance(source, PhantomSource) else list_unlabelled(source) for source in config.unlabelled]
    with using_home(home):
        digests = FileDigests(home / "data" / "digests.json")
        content = content_of(config.unlabelled, listings, digests)
        on_invalid = FORMER[config.on_invalid]
        fingerprint = digest(
            "unlabelled", FORMAT, dataset.fingerprint, config.size, on_invalid, *content, *Way.of(config).identity()
        )
        with contextlib.suppress(OSError):  # a user who cannot write to the cache hashes the files each time
            digests.keep()
        folder = home / "data" / fingerprint
        whole = _intact_unlabelled(folder)
        if whole is None:
            with lock_of(folder):
                if (whole := _intact_unlabelled(folder)) is None:
                    _store_unlabelled(config, listings, folder)
                    whole = open_unlabelled(home, fingerprint)
    left_out = tuple(one for listing in listings if listing is not None for one in passed_over(listing))
    whole = dataclasses.replace(whole, remarks=left_out)
    if whole.skipped:
        logger.warning("%d unlabelled images with defects are left out: %s", len(whole.skipped), folder / "skipped.txt")
    return UnlabelledPart(whole=whole, positions=(), fraction=config.unlabelled_fraction).beside(dataset, splits)


def _intact_unlabelled(folder: Path) -> UnlabelledImages | None:
    return _intact(folder, _open_unlabelled, lambda images: (images.images, images.infos, images.together))


def open_unlabelled(home: Path, fingerprint: str) -> UnlabelledImages:
    """Opens the cached unlabelled images with this fingerprint, for a worker."""
    return _open_unlabelled(home / "data" / fingerprint)


def _open_unlabelled(folder: Path) -> UnlabelledImages:
    stored = json.loads((folder / "together.json").read_bytes())
    stored = {"together": stored} if isinstance(stored, list) else stored  # the first releases wrote a list
    return UnlabelledImages(
        images=_with_channels(np.load(folder / "images.npy", mmap_mode="r")),
        infos=read_infos((folder / "infos.json").read_bytes()),
        boxes=np.load(folder / "boxes.npy") if (folder / "boxes.npy").is_file() else None,
        together=_TOGETHER.validate_python(TOGETHER_SCHEMA.upgraded(stored)["together"]),
        skipped=tuple((folder / "skipped.txt").read_text(encoding="utf-8").splitlines()),
        fingerprint=folder.name,
    )


def open_part(home: Path, place: UnlabelledPlace) -> UnlabelledPart:
    """Opens the part that ``place`` describes."""
    whole = open_unlabelled(home, place.data)
    return UnlabelledPart(whole=whole, positions=place.positions, fraction=place.fraction)


def _store_unlabelled(config: DataConfig, listings: list[Listing | None], folder: Path) -> None:
    """Reads all images to find which belong together, and caches the unlabelled ones."""
    labelled = [None if isinstance(source, PhantomSource) else list_source(source) for source in config.sources]
    gathered = gather((*config.sources, *config.unlabelled), (*labelled, *listings), way=Way.of(config))
    known = {source_name(source) for source in config.sources}
    plain = {
        source_name(source)
        for source in (*config.sources, *config.unlabelled)
        if isinstance(source, FolderSource | ImagesSource)
    }
    places = [place for place, info in enumerate(gathered.infos) if info.source not in known]
    listed = [listing for listing in listings if listing is not None]
    read = {entry.image for listing in listed for entry in listing.entries}
    defects = [defect for listing in listed for defect in listing.defects]
    defects += [defect for defect in gathered.defects if defect.path in read]
    refuse_defects(defects, config)
    if not places:
        raise DataError("data.unlabelled: no folder has a readable image")
    together = _together(gathered, set(places), shared=plain)
    with atomic_folder(folder, replace=True) as beside:
        np.save(beside / "images.npy", _stacked([gathered.images[place] for place in places]))
        if config.fit == "pad":
            np.save(beside / "boxes.npy", np.array([gathered.boxes[place] for place in places], dtype=np.int16))
        (beside / "infos.json").write_bytes(dump_infos(gathered.infos[place] for place in places))
        stamped = TOGETHER_SCHEMA.stamped({"together": [together[place] for place in places]})
        (beside / "together.json").write_text(json.dumps(stamped), encoding="utf-8")
        (beside / "skipped.txt").write_text("".join(f"{defect}\n" for defect in defects), encoding="utf-8")


def _together(gathered: Gathered, unlabelled: set[int], *, shared: Collection[str]) -> dict[int, tuple[str, ...]]:
    """Lists, for each unlabelled image, the images with masks in its cluster (``shared`` as for ``clusters``)."""
    numbers = clusters(gathered, shared=shared)
    members: dict[int, list[str]] = {}
    for place, info in enumerate(gathered.infos):
        if place not in unlabelled:
            members.setdefault(numbers[place], []).append(info.id)
    return {place: tuple(members.get(numbers[place], ())) for place in unlabelled}
