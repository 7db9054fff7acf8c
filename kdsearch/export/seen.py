"""Which images a student was trained on and chosen by, and which are locked away, so that nobody mistakes a score."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.data.dataset import Dataset, Splits, UnlabelledPart
from kdsearch.errors import ModelError
from kdsearch.export.description import Description, require_unchanged

FILE = "seen.txt"
DIGITS = 16
LEARNT, LOCKED = "learnt", "locked"
MAX_BYTES = 50_000_000


def digest_image(image: npt.NDArray[np.uint8]) -> str:
    """Stands for the grey values S×S, at the student's size."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:DIGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Digests of a study's images."""

    learnt: frozenset[str]
    """Those of the training and the validation split."""
    locked: frozenset[str]
    """Those of the test split."""


def dump_seen(dataset: Dataset, splits: Splits, unlabelled: UnlabelledPart | None = None) -> str:
    """A line for each image of the splits, and each that was learnt from without a mask, in no telling order."""
    parts = {LEARNT: (*splits.train, *splits.validation), LOCKED: splits.test}
    lines = {f"{digest_image(dataset.images[p])} {part}\n" for part, positions in parts.items() for p in positions}
    if unlabelled is not None:
        lines |= {f"{digest_image(unlabelled.whole.images[p])} {LEARNT}\n" for p in unlabelled.positions}
    return "".join(sorted(lines))


def read_seen(folder: Path, description: Description) -> Seen:
    """The digests in a picked student's folder; raises ModelError where they are not there or are others."""
    path = folder / FILE
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: missing or too large; write the folder again with kdsearch pick")
    require_unchanged(path, description)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if any(not re.fullmatch(rf"[0-9a-f]{{{DIGITS}}} ({LEARNT}|{LOCKED})", line) for line in lines):
        raise ModelError(f"{path}: must hold {DIGITS} hexadecimal digits and {LEARNT} or {LOCKED} a line")
    pairs = [line.split() for line in lines]
    learnt, locked = (frozenset(digest for digest, part in pairs if part == wanted) for wanted in (LEARNT, LOCKED))
    return Seen(learnt=learnt, locked=locked - learnt)


def mark_known(images: Iterable[npt.NDArray[np.uint8]], digests: frozenset[str]) -> npt.NDArray[np.bool_]:
    """N, true where an image of N×S×S is among those that the digests stand for."""
    return np.array([digest_image(image) in digests for image in images], dtype=np.bool_)
