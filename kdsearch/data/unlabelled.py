"""Images without masks, kept apart from those that students learn from, are compared by and tested on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from kdsearch.config.data import DataConfig, FolderSource, ImagesSource, PhantomSource, source_name
from kdsearch.data.cache import FORMAT, content_of
from kdsearch.data.dataset import (
    Dataset,
    Splits,
    UnlabelledImages,
    UnlabelledPart,
    UnlabelledPlace,
    dump_infos,
    read_infos,
)
from kdsearch.data.defects import refuse_defects
from kdsearch.data.entry import Listing
from kdsearch.data.gathering import Gathered, clusters, gather
from kdsearch.data.readers.layout import passed_over
from kdsearch.data.source import list_source, list_unlabelled
from kdsearch.errors import DataError, KdsearchError, first_line
from kdsearch.files.digests import FileDigests, digest
from kdsearch.files.home import using_home
from kdsearch.files.schema import Schema, unchanged
from kdsearch.files.whole import lock_of, whole_folder

logger = logging.getLogger(__name__)

SCHEMA = Schema(what="list of images that belong together", upgrades=(unchanged,))
_TOGETHER = TypeAdapter(tuple[tuple[str, ...], ...])


def load_unlabelled(config: DataConfig, home: Path, dataset: Dataset, splits: Splits) -> UnlabelledPart | None:
    """The study's unlabelled images for that split of its data set, from the cache where they are known.

    An image that belongs together with a validation or test image is left out: by a group of one name in plain folders,
    or as its near-duplicate. None where the study has no such sources. Raises DataError where none can be used, or that
    lists every defect.
    """
    if not config.unlabelled:
        return None
    listings = [None if isinstance(source, PhantomSource) else list_unlabelled(source) for source in config.unlabelled]
    with using_home(home):
        digests = FileDigests(home / "data" / "digests.json")
        content = content_of(config.unlabelled, listings, digests)
        fingerprint = digest("unlabelled", FORMAT, dataset.fingerprint, config.size, config.on_defect, *content)
        with contextlib.suppress(OSError):  # whoever may only read the cache hashes anew
            digests.keep()
        folder = home / "data" / fingerprint
        whole = _whole(home, fingerprint)
        if whole is None:
            with lock_of(folder):
                if (whole := _whole(home, fingerprint)) is None:
                    _store(config, listings, folder)
                    whole = open_unlabelled(home, fingerprint)
    left_out = tuple(one for listing in listings if listing is not None for one in passed_over(listing))
    whole = dataclasses.replace(whole, remarks=left_out)
    if whole.skipped:
        logger.warning("%d unlabelled images with defects are left out: %s", len(whole.skipped), folder / "skipped.txt")
    return UnlabelledPart(whole=whole, positions=(), fraction=config.unlabelled_fraction).beside(dataset, splits)


def _whole(home: Path, fingerprint: str) -> UnlabelledImages | None:
    """The cached images; None if there are none, or they are damaged."""
    folder = home / "data" / fingerprint
    if not folder.is_dir():
        return None
    try:
        found = open_unlabelled(home, fingerprint)
        if len(found.images) == len(found.infos) == len(found.together):
            return found
        why = "its files are of different numbers of images"
    except (OSError, EOFError, ValueError, LookupError, KdsearchError) as error:
        why = first_line(error)
    logger.warning("the cached images in %s are damaged (%s) and are made again", folder, why)
    return None


def open_unlabelled(home: Path, fingerprint: str) -> UnlabelledImages:
    """The cached images of that fingerprint, as a worker opens them."""
    folder = home / "data" / fingerprint
    return UnlabelledImages(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        infos=read_infos((folder / "infos.json").read_bytes()),
        together=_read_together((folder / "together.json").read_bytes()),
        skipped=tuple((folder / "skipped.txt").read_text(encoding="utf-8").splitlines()),
        fingerprint=fingerprint,
    )


def _read_together(content: bytes) -> tuple[tuple[str, ...], ...]:
    """The first releases wrote a list."""
    found = json.loads(content)
    return _TOGETHER.validate_python(
        SCHEMA.upgraded({"together": found} if isinstance(found, list) else found)["together"]
    )


def open_part(home: Path, place: UnlabelledPlace) -> UnlabelledPart:
    """The part that lies there."""
    whole = open_unlabelled(home, place.data)
    return UnlabelledPart(whole=whole, positions=place.positions, fraction=place.fraction)


def _store(config: DataConfig, listings: list[Listing | None], folder: Path) -> None:
    """Reads labelled and unlabelled images, to see which belong together, and keeps the latter."""
    labelled = [None if isinstance(source, PhantomSource) else list_source(source) for source in config.sources]
    gathered = gather((*config.sources, *config.unlabelled), (*labelled, *listings), size=config.size)
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
        raise DataError("data.unlabelled: none of the folders holds an image that can be read")
    together = _together(gathered, set(places), shared=plain)
    with whole_folder(folder, replace=True) as beside:
        np.save(beside / "images.npy", np.stack([gathered.images[place] for place in places]))
        (beside / "infos.json").write_bytes(dump_infos(gathered.infos[place] for place in places))
        stamped = SCHEMA.stamped({"together": [together[place] for place in places]})
        (beside / "together.json").write_text(json.dumps(stamped), encoding="utf-8")
        (beside / "skipped.txt").write_text("".join(f"{defect}\n" for defect in defects), encoding="utf-8")


def _together(gathered: Gathered, unlabelled: set[int], *, shared: Collection[str]) -> dict[int, tuple[str, ...]]:
    """For each unlabelled image the labelled ones of its cluster; groups of the sources ``shared`` go by name."""
    numbers = clusters(gathered, shared=shared)
    members: dict[int, list[str]] = {}
    for place, info in enumerate(gathered.infos):
        if place not in unlabelled:
            members.setdefault(numbers[place], []).append(info.id)
    return {place: tuple(members.get(numbers[place], ())) for place in unlabelled}
