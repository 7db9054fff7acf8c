"""kdsearch: from a folder of images and a teacher to a Pareto front of small students."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.export.loading import LoadedStudent, Runtime
    from kdsearch.study import Study

__all__ = ["Study", "__version__", "load"]


def load(folder: str | Path, *, runtime: Runtime = "onnx") -> LoadedStudent:
    """The student that ``kdsearch pick`` wrote to a folder, as a function from images to masks.

    ``runtime`` is ``onnx``, ``int8`` (the eight-bit file) or ``torch``. Raises kdsearch.errors.ModelError where the
    folder does not hold a student.
    """
    from kdsearch.export.loading import load_student  # so that importing kdsearch stays light

    return load_student(folder, runtime=runtime)


def __getattr__(name: str) -> object:
    """``Study``, imported when it is asked for, so that importing kdsearch stays light."""
    if name != "Study":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kdsearch.study import Study

    return Study
