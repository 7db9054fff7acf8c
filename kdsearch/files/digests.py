"""Digests of settings and files; digests of files are remembered, so that unchanged files are not read again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypeAlias

from kdsearch.errors import KdsearchError
from kdsearch.files.schema import Content, Schema

State: TypeAlias = tuple[int, int, int, int]
"""Size in bytes, mtime and ctime in nanoseconds, inode."""


def _by_file(content: Content) -> Content:
    """Upgrades schema 0, which was only the files."""
    return {"files": content}


SCHEMA = Schema(what="remembered digests", upgrades=(_by_file,))


def digest(*parts: object) -> str:
    """Hashes the parts to sixteen hexadecimal digits, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seed_of(*parts: object) -> int:
    """Hashes the parts to a seed below 2³¹, the same on every machine."""
    return int(digest(*parts), 16) % 2**31


def digest_file(path: Path) -> str:
    """Computes the file's SHA-256; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileDigests:
    """SHA-256 of files; a file is read again if its size, times or inode have changed."""

    def __init__(self, store: Path) -> None:
        """Reads the digests from ``store``; starts from scratch if it is unreadable."""
        self._store = store
        self._known: dict[str, tuple[State, str]] = {}
        self._changed = False
        try:
            content = SCHEMA.upgraded(json.loads(store.read_text(encoding="utf-8")))["files"]
            self._known = {path: (tuple(state), found) for path, (state, found) in content.items()}
        except (OSError, ValueError, TypeError, AttributeError, KeyError, KdsearchError):
            self._known = {}

    def of(self, path: Path) -> str:
        """Returns hexadecimal digits, or ``unreadable``."""
        try:
            now = path.stat()
            state = now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino
            known = self._known.get(str(path.absolute()))
            if known is not None and known[0] == state:
                return known[1]
            found = digest_file(path)
        except OSError:
            return "unreadable"
        self._known[str(path.absolute())] = (state, found)
        self._changed = True
        return found

    def keep(self) -> None:
        """Writes new digests atomically; raises OSError."""
        if not self._changed:
            return
        from kdsearch.files.atomic import atomic_write  # imports fsspec, which kdsearch bench must not need

        atomic_write(str(self._store), json.dumps(SCHEMA.stamped({"files": self._known})).encode())
        self._changed = False
