"""Lists the images of a source with its reader, and computes the fingerprint of its files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdsearch.config.data import DataConfig
from kdsearch.config.sources import (
    AnnotatedSource,
    DicomSource,
    FileSource,
    FolderSource,
    ImagesSource,
    NnunetSource,
    PhantomSource,
    PublishedSource,
    source_name,
)
from kdsearch.data.coco import COCO_WHERE, read_coco
from kdsearch.data.cvat import CVAT_WHERE, read_cvat
from kdsearch.data.dicom_folder import DICOM_WHERE, read_dicom
from kdsearch.data.folder import read_folder, read_images
from kdsearch.data.labelme import LABELME_WHERE, read_labelme
from kdsearch.data.layout import AnnotationReader, Listing, Reader, shown
from kdsearch.data.nnunet import NNUNET_WHERE, read_nnunet, require_labels
from kdsearch.data.pairing import FOLDER_WHERE
from kdsearch.data.phantom import VERSION as PHANTOM_VERSION
from kdsearch.data.published import (
    BREAST_WHERE,
    BUSBRA_WHERE,
    BUSI_WHERE,
    UDIAT_WHERE,
    read_breast,
    read_busbra,
    read_busi,
    read_udiat,
)
from kdsearch.data.tables import KNOWN, read_table, require_one_row_each, unread_columns
from kdsearch.data.yolo import YOLO_WHERE, read_yolo
from kdsearch.errors import DataError, nearest
from kdsearch.files.digests import FileDigests
from kdsearch.files.home import expanded

IMAGES_WHERE = "put images into it"

READERS: dict[str, tuple[Reader, str]] = {
    "busi": (read_busi, BUSI_WHERE),
    "udiat": (read_udiat, UDIAT_WHERE),
    "busbra": (read_busbra, BUSBRA_WHERE),
    "breast": (read_breast, BREAST_WHERE),
}
"""Readers of published data sets, and where to get the data."""
ANNOTATED: dict[str, tuple[AnnotationReader, str]] = {
    "coco": (read_coco, COCO_WHERE),
    "yolo": (read_yolo, YOLO_WHERE),
    "labelme": (read_labelme, LABELME_WHERE),
    "cvat": (read_cvat, CVAT_WHERE),
}
"""Readers of annotation files, and what they expect."""
LICENCES: dict[str, str] = {
    "phantom": "simulated by kdsearch, no license needed",
    "busi": "article CC BY 4.0; cite Al-Dhabyani et al. 2020",
    "udiat": "available from its authors on request, under their terms; cite Yap et al. 2018",
    "busbra": "see its Zenodo page; cite Gómez-Flores et al. 2024",
    "breast": "CC BY 4.0; cite Pawłowska et al. 2024",
    "folder": "unknown to kdsearch; ask the owner of the images",
    **dict.fromkeys(("nnunet", "dicom", *ANNOTATED), "unknown to kdsearch; ask the owner of the images"),
}
"""Terms of use of each reader's images, as far as kdsearch knows."""


def origin(reader: str) -> str:
    """Describes where a reader's images come from and the terms of use."""
    where = f"{READERS[reader][1]}; " if reader in READERS else ""
    return f"{where}{LICENCES['folder' if reader == 'images' else reader]}"


def list_source(source: FileSource) -> Listing:
    """Lists a source's folder; raises DataError if the folder or its layout is missing."""
    if isinstance(source, FolderSource):
        folder = _folder(source.folder, FOLDER_WHERE, field="data.sources")
        return read_folder(folder, csv=source.csv, images=source.images, masks=source.masks)
    if isinstance(source, AnnotatedSource):
        annotated, where = ANNOTATED[source.reader]
        listing = annotated(_folder(source.folder, where, field="data.sources"), source.annotations)
        return _mapped(listing, source.map) if source.map else listing
    if isinstance(source, NnunetSource):
        return read_nnunet(_folder(source.folder, NNUNET_WHERE, field="data.sources"), fold=source.fold)
    if isinstance(source, DicomSource):
        folder = _folder(source.folder, DICOM_WHERE, field="data.sources")
        listing = read_dicom(folder, every=source.every, group=source.group)
        return _mapped(listing, source.map) if source.map else listing
    reader, where = READERS[source.reader]
    return reader(_folder(source.folder, where, field="data.sources"))


def list_unlabelled(source: FileSource | ImagesSource) -> Listing:
    """Lists a source's images without their masks; raises DataError if the folder or its layout is missing."""
    where = READERS[source.reader][1] if isinstance(source, PublishedSource) else IMAGES_WHERE
    folder = _folder(source.folder, where, field="data.unlabelled")
    try:
        if isinstance(source, PublishedSource):
            listing = READERS[source.reader][0](folder)
        elif isinstance(source, AnnotatedSource):
            listing = ANNOTATED[source.reader][0](folder, source.annotations)
        elif isinstance(source, NnunetSource):
            listing = read_nnunet(folder, fold=source.fold)
        elif isinstance(source, DicomSource):
            listing = read_dicom(folder, every=source.every, group=source.group, with_masks=False)
        elif isinstance(source, FolderSource):
            listing = read_folder(folder, csv=source.csv, with_masks=False)
        else:
            listing = read_images(folder, csv=source.csv)
    except DataError as error:
        raise DataError(f"data.unlabelled: source {source_name(source)}: {error}") from error
    entries = tuple(dataclasses.replace(entry, masks=(), classes=(), shapes=()) for entry in listing.entries)
    return dataclasses.replace(listing, entries=entries)


def check_tables(config: DataConfig) -> list[str]:
    """Returns a line per plain folder's table that has unread columns; ignores missing tables.

    Raises DataError if such a column seems to hold groups, or if two rows for one image differ. Only
    commands that start or change a study check this, so results of older releases stay readable.
    """
    lines = []
    for source in (*config.sources, *config.unlabelled):
        if not isinstance(source, FolderSource | ImagesSource) or source.csv is None:
            continue
        try:
            path = _folder(source.folder, IMAGES_WHERE, field="data.sources") / source.csv
        except DataError:
            continue  # reported when the images are read
        if not path.is_file():
            continue
        table = read_table(path, key="image")
        require_one_row_each(table)
        if unread := unread_columns(table, ignored=source.ignore_columns):
            lines.append(f"{path}: ignored columns: {', '.join(unread)}; kdsearch reads {', '.join(KNOWN)}")
    return lines


def _mapped(listing: Listing, names: Mapping[str, str]) -> Listing:
    """Renames classes; raises DataError if there is no class of a name."""
    known = {name for entry in listing.entries for name in entry.names}
    if unknown := sorted(set(names) - known):
        raise DataError(f"data.sources: map: no object has the class {unknown[0]!r}{nearest(unknown[0], known)}")
    entries = tuple(
        dataclasses.replace(
            entry,
            shapes=tuple(dataclasses.replace(shape, name=names.get(shape.name, shape.name)) for shape in entry.shapes),
            classes=tuple(names.get(name, name) for name in entry.classes),
        )
        for entry in listing.entries
    )
    return dataclasses.replace(listing, entries=entries)


def require_same_classes(config: DataConfig, listings: Sequence[Listing | None]) -> None:
    """Raises DataError if sources name classes that differ from the study's, or from each other's."""
    shown = set[str]()
    for source, listing in zip(config.sources, listings, strict=True):
        if isinstance(source, NnunetSource):
            require_labels(source, _folder(source.folder, NNUNET_WHERE, field="data.sources"), config)
        elif listing is not None:
            shown |= {name for entry in listing.entries for name in entry.names}
    if len(shown) > 1 and config.classes is None:
        raise DataError(
            f"data.classes: the annotations have several classes; write classes: [background, "
            f"{', '.join(sorted(shown))}], or give a class the name of another with map in its source"
        )


def fingerprint_listing(listing: Listing, digests: FileDigests) -> str:
    """Changes with the content of any file, with any id, label or group, and with any defect."""
    total = hashlib.sha256()
    for defect in listing.defects:
        total.update(f"{shown(defect.path.name)}: {defect.problem}".encode(errors="backslashreplace"))
    for entry in listing.entries:
        part = () if entry.part is None else (entry.part,)
        drawn = (entry.shapes, entry.size) if entry.shapes or entry.size else ()
        frames = (entry.frame, entry.mask_frames) if entry.frame or entry.mask_frames else ()
        facts = entry.id, entry.label, entry.group, len(entry.masks), *part, *entry.classes, *drawn, *frames
        total.update(repr(facts).encode(errors="backslashreplace"))
        for path in (entry.image, *entry.masks):
            total.update(digests.of(path).encode())
    return total.hexdigest()


def fingerprint_phantom(source: PhantomSource) -> str:
    """Changes with the seed, the number of images and the simulation."""
    more = f"{'-cysts' if source.classes == 3 else ''}{'-colored' if source.colored else ''}"
    return f"phantom-{PHANTOM_VERSION}-{source.seed}-{source.images}{more}"


def _folder(text: str, where: str, *, field: str) -> Path:
    try:
        filled = string.Template(text).substitute(os.environ)
    except KeyError as error:
        name = str(error).strip("'")
        raise DataError(
            f"{field}: folder {text}: the environment variable {name} is not set; set it to the data's folder, or "
            f"name the folder on the command line with --data [NAME=]FOLDER; get the data: {where}"
        ) from None
    except ValueError:
        raise DataError(
            f"{field}: folder {text}: $ must be followed by the name of an environment variable; write $$ for a dollar "
            "sign"
        ) from None
    return expanded(filled, field=f"{field}: folder")
