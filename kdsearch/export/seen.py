"""``seen.txt``: hashes of the images a student was trained on or selected by, and of the locked test images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.data.dataset import ACROSS, Dataset, ImageInfo, Splits, UnlabelledPart
from kdsearch.data.gathering import HASH_BITS, are_near, hash_image
from kdsearch.data.pixels import gray_of
from kdsearch.errors import ModelError
from kdsearch.export.description import Description, require_unchanged

FILE = "seen.txt"
FIRST_LINE = "schema 2"
TRAIN, TEST = "train", "test"
FORMER = {"learnt": TRAIN, "locked": TEST}
"""Names of the parts in schemas 0 and 1. Files of schema 0 have no first line with the schema, and each of their lines
has only an exact digest and a part."""
DIGITS, NAME_DIGITS = 16, 8
NOTHING = "-"
"""Stands for a group's digest if the image has no group."""
MAX_BYTES = 50_000_000
Bools = npt.NDArray[np.bool_]

_HEX = "[0-9a-f]"
_LINES = {
    True: re.compile(
        rf"{_HEX}{{{DIGITS}}} {_HEX}{{{HASH_BITS // 4}}} {_HEX}{{{NAME_DIGITS}}} "
        rf"({_HEX}{{{NAME_DIGITS}}}|{NOTHING}) ({TRAIN}|{TEST})"
    ),
    False: re.compile(rf"{_HEX}{{{DIGITS}}} ({TRAIN}|{TEST})"),
}
"""The form of each line: True for files with hashes of the images' appearance, False for schema 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Digests of the images of a part; the images cannot be reconstructed from them."""

    digests: frozenset[str]
    """Digests of the pixels."""
    hashes: Bools
    """M×320 hashes of the images' appearance, by ``hash_image``."""
    names: frozenset[str]
    """Digests of file names."""
    groups: frozenset[str]
    """Digests of the names of groups, such as patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Digests of a study's images."""

    learnt: Known
    """The training and validation images, and the unlabelled images."""
    locked: Known
    """The locked test images."""
    looks: bool
    """Whether the hashes of the images' appearance are known; older releases wrote only exact digests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognized:
    """Which of N images are already in a student's study."""

    learnt: Bools
    """N, true for images that the student was trained on or selected by."""
    locked: Bools
    """N, true for the study's locked test images."""
    alike: Bools
    """N, true for other images that have the file name or the group of a known image."""


def dump_seen(dataset: Dataset, splits: Splits, unlabelled: UnlabelledPart | None = None) -> str:
    """Returns the file's text: one line for each image of the splits and each unlabelled image, sorted by digest."""
    lines = set(_lines(dataset.images, dataset.infos, (*splits.train, *splits.validation), TRAIN))
    lines |= set(_lines(dataset.images, dataset.infos, splits.test, TEST))
    if unlabelled is not None:
        lines |= set(_lines(unlabelled.whole.images, unlabelled.whole.infos, unlabelled.positions, TRAIN))
    return "".join(f"{line}\n" for line in (FIRST_LINE, *sorted(lines)))


def _lines(
    images: npt.NDArray[np.uint8], infos: Sequence[ImageInfo], positions: Iterable[int], part: str
) -> Iterator[str]:
    groups = _given_groups(infos)
    for position in positions:
        image = np.asarray(images[position])
        look = np.packbits(hash_image(_gray(image))).tobytes().hex()
        yield f"{_digest(image)} {look} {_name(infos[position])} {groups[position]} {part}"


def read_seen(folder: Path, description: Description) -> Seen:
    """Reads the file from a picked student's folder; raises ModelError if it is missing or was changed."""
    path = folder / FILE
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: missing or too large; run kdsearch pick again")
    require_unchanged(path, description)
    return parse_seen(path.read_text(encoding="utf-8", errors="replace"), what=path)


def parse_seen(text: str, *, what: object) -> Seen:
    """Parses the text that ``dump_seen`` of this or an older release wrote.

    Raises ModelError, which starts with ``what``, for any other text.
    """
    lines = text.splitlines()
    looks = bool(lines) and lines[0].startswith("schema ")
    first = lines.pop(0) if looks else ""
    if first not in ("", "schema 1", FIRST_LINE):
        raise ModelError(f"{what}: written by a newer release of kdsearch; install that release")
    if first != FIRST_LINE:
        lines = [" ".join((*line.split(" ")[:-1], FORMER.get(line.split(" ")[-1], "?"))) for line in lines]
    if not all(_LINES[looks].fullmatch(line) for line in lines):
        raise ModelError(f"{what}: not a list of images that kdsearch pick wrote; run kdsearch pick again")
    rows = [line.split() for line in lines]
    learnt, locked = (_known([row for row in rows if row[-1] == part]) for part in (TRAIN, TEST))
    return Seen(learnt=learnt, locked=locked, looks=looks)


def _known(rows: Sequence[Sequence[str]]) -> Known:
    looks = [row[1] for row in rows if len(row) > 2]
    packed = np.frombuffer(bytes.fromhex("".join(looks)), np.uint8).reshape(len(looks), HASH_BITS // 8)
    return Known(
        digests=frozenset(row[0] for row in rows),
        hashes=np.unpackbits(packed, axis=1).astype(np.bool_),
        names=frozenset(row[2] for row in rows if len(row) > 2),
        groups=frozenset(row[3] for row in rows if len(row) > 2) - {NOTHING},
    )


def recognize(seen: Seen, images: npt.NDArray[np.uint8], infos: Sequence[ImageInfo], *, simulated: bool) -> Recognized:
    """Finds images N×C×H×W that are in the student's study: with the same pixels, or nearly the same appearance.

    Resized, recompressed and brightened copies look nearly the same. Images with the file name or the group of a known
    image may differ more. Simulated images resemble each other, so only their pixels are compared.
    """
    digests = [_digest(image) for image in images]
    exactly = {part: _among(digests, known.digests) for part, known in ((TRAIN, seen.learnt), (TEST, seen.locked))}
    learnt, locked = exactly[TRAIN], exactly[TEST] & ~exactly[TRAIN]
    if simulated or not seen.looks:
        return Recognized(learnt=learnt, locked=locked, alike=np.zeros_like(learnt))
    names, groups = [_name(info) for info in infos], _given_groups(infos)
    hashes = np.stack([hash_image(_gray(image)) for image in images])
    near, alike = {}, {}
    for part, known in ((TRAIN, seen.learnt), (TEST, seen.locked)):
        alike[part] = _among(names, known.names) | _among(groups, known.groups)
        near[part] = are_near(hashes, known.hashes) | (alike[part] & are_near(hashes, known.hashes, named_alike=True))
    learnt |= near[TRAIN] & ~locked
    locked |= near[TEST] & ~learnt
    return Recognized(learnt=learnt, locked=locked, alike=(alike[TRAIN] | alike[TEST]) & ~learnt & ~locked)


def _gray(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Converts C×H×W to H×W gray values."""
    return np.asarray(image[0]) if len(image) == 1 else gray_of(np.ascontiguousarray(image.transpose(1, 2, 0)))


def _among(digests: Sequence[str], known: frozenset[str]) -> Bools:
    return np.array([digest in known for digest in digests], dtype=np.bool_)


def _digest(image: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:DIGITS]


def _name(info: ImageInfo) -> str:
    """A digest of the name of the image's file."""
    return _short(info.id.rpartition("/")[2].lower())


def _given_groups(infos: Sequence[ImageInfo]) -> list[str]:
    """Digests of the groups that the data set names; groups of near-duplicates are named after one of their images."""
    ids = {info.id for info in infos}
    given = (info.group if info.group and info.group.removeprefix(ACROSS) not in ids else None for info in infos)
    return [NOTHING if group is None else _short(group) for group in given]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()[:NAME_DIGITS]
