"""Standard output and error that may lose their reader: what is written then is dropped, and the work goes on."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Outlet(io.FileIO):
    """A file descriptor for writing, which becomes the null device once nobody reads the pipe behind it."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Replaces ``sys.stdout`` and ``sys.stderr``, so that neither ``print`` nor rich ends a command whose reader left.

    Leaves alone what is no file, such as a test's or a notebook's.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)
        if not isinstance(stream, io.TextIOWrapper) or type(raw) is not io.FileIO:
            continue
        stream.flush()
        outlet = _Outlet(raw.fileno(), "w", closefd=False)
        replaced = io.TextIOWrapper(
            io.BufferedWriter(outlet) if buffer is not raw else outlet,  # as python -u has it
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, replaced)
