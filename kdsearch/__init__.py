"""kdsearch finds small segmentation networks by distillation and architecture search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.export.loading import Runtime, Student
    from kdsearch.study import Study

__all__ = ["Study", "__version__", "load"]


def load(folder: str | Path, *, runtime: Runtime = "onnx") -> Student:
    """Loads a student from a folder that ``kdsearch pick`` wrote.

    The student is called with an image and returns its mask. ``runtime`` is ``onnx``, ``int8`` (the 8-bit ONNX file)
    or ``torch``. Raises kdsearch.errors.ModelError if the folder does not contain a student.
    """
    from kdsearch.export.loading import load_student  # importing kdsearch stays fast

    return load_student(folder, runtime=runtime)


def __getattr__(name: str) -> object:
    """Imports ``Study`` on first use, so that importing kdsearch stays fast."""
    if name != "Study":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kdsearch.study import Study

    return Study
