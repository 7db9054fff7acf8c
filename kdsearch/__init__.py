"""kdsearch finds small segmentation networks by distillation and architecture search."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from kdsearch.errors import KdsearchError
from kdsearch.version import __version__

if TYPE_CHECKING:
    from kdsearch.export.loading import Student, load_student
    from kdsearch.study import Picked, Study

__all__ = ["KdsearchError", "Picked", "Student", "Study", "__version__", "load_student"]

_MODULES = {
    "Picked": "kdsearch.study",
    "Student": "kdsearch.export.loading",
    "Study": "kdsearch.study",
    "load_student": "kdsearch.export.loading",
}


def __getattr__(name: str) -> object:
    """Imports the classes and functions in ``__all__`` on first use, so that importing kdsearch stays fast."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
