"""Where a source's images come from: which reader lists it, and what its files' fingerprint is."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import string
from pathlib import Path

from kdsearch.config.data import FolderSource, ImagesSource, PhantomSource, PublishedSource, source_name
from kdsearch.data.entry import Listing, Reader
from kdsearch.data.phantom.simulate import VERSION as PHANTOM_VERSION
from kdsearch.data.readers.breast import WHERE as BREAST_WHERE
from kdsearch.data.readers.breast import read_breast
from kdsearch.data.readers.busbra import WHERE as BUSBRA_WHERE
from kdsearch.data.readers.busbra import read_busbra
from kdsearch.data.readers.busi import WHERE as BUSI_WHERE
from kdsearch.data.readers.busi import read_busi
from kdsearch.data.readers.folder import WHERE as FOLDER_WHERE
from kdsearch.data.readers.folder import read_folder, read_images
from kdsearch.data.readers.udiat import WHERE as UDIAT_WHERE
from kdsearch.data.readers.udiat import read_udiat
from kdsearch.errors import DataError
from kdsearch.files.digests import FileDigests
from kdsearch.files.home import expanded

IMAGES_WHERE = "put images into it"

READERS: dict[str, tuple[Reader, str]] = {
    "busi": (read_busi, BUSI_WHERE),
    "udiat": (read_udiat, UDIAT_WHERE),
    "busbra": (read_busbra, BUSBRA_WHERE),
    "breast": (read_breast, BREAST_WHERE),
}
"""Published sets: how each is listed, and where to get it."""
LICENCES: dict[str, str] = {
    "phantom": "simulated by kdsearch, no licence needed",
    "busi": "article CC BY 4.0; cite Al-Dhabyani et al. 2020",
    "udiat": "given out by its authors on request, under their terms; cite Yap et al. 2018",
    "busbra": "as its record states; cite Gómez-Flores et al. 2024",
    "breast": "CC BY 4.0; cite Pawłowska et al. 2024",
    "folder": "not known to kdsearch; its owner says",
}
"""Under what terms each reader's images may be used, as far as kdsearch knows."""


def origin(reader: str) -> str:
    """Where a reader's images come from, and under what terms."""
    where = f"{READERS[reader][1]}; " if reader in READERS else ""
    return f"{where}{LICENCES['folder' if reader == 'images' else reader]}"


def list_source(source: PublishedSource | FolderSource) -> Listing:
    """What the source's folder holds; raises DataError where the folder or its layout is not there."""
    if isinstance(source, FolderSource):
        return read_folder(_folder(source.folder, FOLDER_WHERE, field="data.sources"), csv=source.csv)
    reader, where = READERS[source.reader]
    return reader(_folder(source.folder, where, field="data.sources"))


def list_unlabelled(source: PublishedSource | FolderSource | ImagesSource) -> Listing:
    """The source's images without their masks; raises DataError that names the source where they are not there."""
    where = READERS[source.reader][1] if isinstance(source, PublishedSource) else IMAGES_WHERE
    folder = _folder(source.folder, where, field="data.unlabelled")
    try:
        if isinstance(source, PublishedSource):
            listing = READERS[source.reader][0](folder)
        elif isinstance(source, FolderSource):
            listing = read_folder(folder, csv=source.csv, masks=False)
        else:
            listing = read_images(folder, csv=source.csv)
    except DataError as error:
        raise DataError(f"data.unlabelled: source {source_name(source)}: {error}") from error
    entries = tuple(dataclasses.replace(entry, masks=()) for entry in listing.entries)
    return dataclasses.replace(listing, entries=entries)


def fingerprint_listing(listing: Listing, digests: FileDigests) -> str:
    """Changes with the content of any file, with any id, label or group, and with what is wrong in the folder."""
    total = hashlib.sha256()
    for defect in listing.defects:
        total.update(f"{defect.path.name}: {defect.problem}".encode())
    for entry in listing.entries:
        total.update(repr((entry.id, entry.label, entry.group, len(entry.masks))).encode())
        for path in (entry.image, *entry.masks):
            total.update(digests.of(path).encode())
    return total.hexdigest()


def fingerprint_phantom(source: PhantomSource) -> str:
    """Changes with the seed, the number of images and the simulation."""
    return f"phantom-{PHANTOM_VERSION}-{source.seed}-{source.images}"


def _folder(text: str, where: str, *, field: str) -> Path:
    """The folder with environment variables filled in."""
    try:
        filled = string.Template(text).substitute(os.environ)
    except (KeyError, ValueError) as error:
        name = str(error).strip("'")
        raise DataError(
            f"{field}: folder {text}: the environment variable {name} is not set; set it to the data's folder, or name "
            f"the folder on the command line with --data [NAME=]FOLDER; get the data: {where}"
        ) from None
    return expanded(filled, field=f"{field}: folder")
