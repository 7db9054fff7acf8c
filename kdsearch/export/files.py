"""The files of a picked student's folder; nothing but the standard library is imported here."""

from __future__ import annotations

import hashlib
from pathlib import Path

DESCRIPTION, WEIGHTS, ONNX, INT8 = "student.yaml", "model.safetensors", "model.onnx", "model.int8.onnx"
MOST_BYTES = 1_000_000
"""Of a description; a longer one is none."""


def digest_of(path: Path) -> str:
    """The file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
