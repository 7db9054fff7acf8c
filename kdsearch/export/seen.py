"""Which images a student was trained on and chosen by, so that nobody takes a score on them for a test."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.data.dataset import Dataset, Splits
from kdsearch.errors import ModelError

FILE = "seen.txt"
DIGITS = 16
MAX_BYTES = 50_000_000


def digest_image(image: npt.NDArray[np.uint8]) -> str:
    """Stands for the grey values S×S, at the student's size."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:DIGITS]


def dump_seen(dataset: Dataset, splits: Splits) -> str:
    """A line for each training and validation image, in no telling order."""
    positions = (*splits.train, *splits.validation)
    return "".join(f"{digest}\n" for digest in sorted({digest_image(dataset.images[p]) for p in positions}))


def read_seen(folder: Path) -> frozenset[str]:
    """The digests in a picked student's folder; raises ModelError where they are not there or are none."""
    path = folder / FILE
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: missing or too large; write the folder again with kdsearch pick")
    lines = path.read_text(encoding="utf-8", errors="replace").split()
    if any(not re.fullmatch(rf"[0-9a-f]{{{DIGITS}}}", line) for line in lines):
        raise ModelError(f"{path}: must hold {DIGITS} hexadecimal digits a line")
    return frozenset(lines)


def mark_seen(images: Iterable[npt.NDArray[np.uint8]], seen: frozenset[str]) -> npt.NDArray[np.bool_]:
    """N, true where an image of N×S×S is among the seen."""
    return np.array([digest_image(image) in seen for image in images], dtype=np.bool_)
