"""Keeps a training's state while it runs, so that one that is killed resumes."""

from __future__ import annotations

import logging
import time
import zlib

from kdsearch.distill.state import TrainingState
from kdsearch.files.digests import digest
from kdsearch.files.whole import read_whole, write_whole

SEAL_BYTES = 4 + 16
"""A checksum and the digest of what is trained, before the state itself."""

logger = logging.getLogger(__name__)


class Checkpoint:
    """One training's place for its state; ``failure`` says why the last state could not be kept, if so."""

    def __init__(self, url: str, *, subject: object, every_s: float) -> None:
        """``subject`` is what is trained: a state of anything else is not taken up. ``every_s`` in seconds."""
        self.failure = ""
        self._url = url
        self._subject = digest(subject).encode()
        self._every_s = every_s
        self._kept_at = time.monotonic()

    def resume(self, state: TrainingState) -> None:
        """Brings the state to where a former process left it; a damaged checkpoint is logged and left aside."""
        try:
            content = read_whole(self._url)
        except OSError as error:
            self.failure = f"no checkpoint: {error.strerror or error}"
            return
        if content is None or content[4:SEAL_BYTES] != self._subject:
            return
        body = content[SEAL_BYTES:]
        if zlib.crc32(body).to_bytes(4) != content[:4]:
            logger.warning("%s is damaged; the training begins again", self._url)
            return
        state.restore(body)

    def keep(self, state: TrainingState) -> None:
        """Writes the state if the last one was written long enough ago; a failure is left in ``failure``."""
        if time.monotonic() - self._kept_at < self._every_s:
            return
        body = state.dump()
        try:
            write_whole(self._url, zlib.crc32(body).to_bytes(4) + self._subject + body)
            self.failure = ""
        except OSError as error:
            self.failure = f"no checkpoint: {error.strerror or error}"
        self._kept_at = time.monotonic()
