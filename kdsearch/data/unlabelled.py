"""Images without masks, kept apart from those that students learn from, are compared by and tested on."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from kdsearch.config.data import DataConfig, PhantomSource, source_name
from kdsearch.data.cache import FORMAT, content_of, refuse_defects
from kdsearch.data.dataset import INFOS, Dataset, Splits, UnlabelledImages, UnlabelledPart, UnlabelledPlace
from kdsearch.data.entry import Listing
from kdsearch.data.gathering import Gathered, clusters, gather
from kdsearch.data.source import list_source
from kdsearch.errors import DataError
from kdsearch.files.digests import FileDigests, digest
from kdsearch.files.whole import lock_of, whole_folder

logger = logging.getLogger(__name__)

TOGETHER = TypeAdapter(tuple[tuple[str, ...], ...])


def load_unlabelled(config: DataConfig, home: Path, dataset: Dataset, splits: Splits) -> UnlabelledPart | None:
    """The study's unlabelled images for that split of its data set, from the cache where they are known.

    An image that belongs together with a validation or test image, by a group or as its near-duplicate, is left out.
    None where the study has no such sources. Raises DataError where none can be used, or that lists every defect.
    """
    if not config.unlabelled:
        return None
    listings = [
        None if isinstance(source, PhantomSource) else _without_masks(list_source(source))
        for source in config.unlabelled
    ]
    digests = FileDigests(home / "data" / "digests.json")
    content = content_of(config.unlabelled, listings, digests)
    fingerprint = digest("unlabelled", FORMAT, dataset.fingerprint, config.size, config.on_defect, *content)
    with contextlib.suppress(OSError):  # whoever may only read the cache hashes anew
        digests.keep()
    folder = home / "data" / fingerprint
    if not folder.is_dir():
        with lock_of(folder):
            if not folder.is_dir():
                _store(config, listings, folder)
    whole = open_unlabelled(home, fingerprint)
    part = UnlabelledPart(whole=whole, positions=(), fraction=config.unlabelled_fraction).beside(dataset, splits)
    if not part.positions:
        raise DataError(
            f"data.unlabelled: all of {len(whole.infos)} images belong together with validation or test images; name "
            "other images"
        )
    return part


def open_unlabelled(home: Path, fingerprint: str) -> UnlabelledImages:
    """The cached images of that fingerprint, as a worker opens them."""
    folder = home / "data" / fingerprint
    return UnlabelledImages(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        infos=INFOS.validate_json((folder / "infos.json").read_bytes()),
        together=TOGETHER.validate_json((folder / "together.json").read_bytes()),
        fingerprint=fingerprint,
    )


def open_part(home: Path, place: UnlabelledPlace) -> UnlabelledPart:
    """The part that lies there."""
    whole = open_unlabelled(home, place.data)
    return UnlabelledPart(whole=whole, positions=place.positions, fraction=place.fraction)


def _without_masks(listing: Listing) -> Listing:
    return dataclasses.replace(
        listing, entries=tuple(dataclasses.replace(entry, masks=()) for entry in listing.entries)
    )


def _store(config: DataConfig, listings: list[Listing | None], folder: Path) -> None:
    """Reads labelled and unlabelled images, to see which belong together, and keeps the latter."""
    labelled = [None if isinstance(source, PhantomSource) else list_source(source) for source in config.sources]
    gathered = gather((*config.sources, *config.unlabelled), (*labelled, *listings), size=config.size)
    known = {source_name(source) for source in config.sources}
    places = [place for place, info in enumerate(gathered.infos) if info.source not in known]
    listed = [listing for listing in listings if listing is not None]
    read = {entry.image for listing in listed for entry in listing.entries}
    defects = [defect for listing in listed for defect in listing.defects]
    refuse_defects([*defects, *(defect for defect in gathered.defects if defect.path in read)], config)
    if not places:
        raise DataError("data.unlabelled: none of the folders holds an image of a known format")
    together = _together(gathered, set(places))
    with whole_folder(folder) as beside:
        np.save(beside / "images.npy", np.stack([gathered.images[place] for place in places]))
        (beside / "infos.json").write_bytes(INFOS.dump_json(tuple(gathered.infos[place] for place in places), indent=1))
        (beside / "together.json").write_bytes(TOGETHER.dump_json(tuple(together[place] for place in places)))


def _together(gathered: Gathered, unlabelled: set[int]) -> dict[int, tuple[str, ...]]:
    """For each unlabelled image the labelled ones of its cluster."""
    numbers = clusters(gathered)
    members: dict[int, list[str]] = {}
    for place, info in enumerate(gathered.infos):
        if place not in unlabelled:
            members.setdefault(numbers[place], []).append(info.id)
    return {place: tuple(members.get(numbers[place], ())) for place in unlabelled}
