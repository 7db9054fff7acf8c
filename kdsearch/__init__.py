"""kdsearch: from a folder of images and a teacher to a Pareto front of small students."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.export.loading import LoadedStudent, Runtime

__all__ = ["__version__", "load"]


def load(folder: str | Path, *, runtime: Runtime = "onnx") -> LoadedStudent:
    """The student that ``kdsearch pick`` wrote to a folder, as a function from images to masks.

    ``runtime`` is ``onnx``, ``int8`` (the eight-bit file) or ``torch``. Raises kdsearch.errors.ModelError where the
    folder does not hold a student.
    """
    from kdsearch.export.loading import load_student  # so that importing kdsearch stays light

    return load_student(folder, runtime=runtime)
