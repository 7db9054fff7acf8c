"""Lets timm, segmentation-models-pytorch and ptflops import where torchvision was built for another torch.

The registry's torchvision is built against the CUDA build of torch. Beside a CPU build its compiled operators cannot be
loaded, and ``import torchvision`` fails with ``operator torchvision::nms does not exist``, because it registers Python
kernels for two operators that nobody declared. Declaring them first cures the import; kdsearch calls neither.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing_operators() -> bool:
    """Declares torchvision's operators where its compiled library cannot be loaded; whether that was needed.

    Call it before the first import of a library that imports torchvision. Calling it again does nothing.
    """
    library = _compiled_library()
    if library is None or _declared("nms"):
        return False
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except OSError:
        for name, schema in _SCHEMAS.items():
            torch.library.define(f"torchvision::{name}", schema)
        return True
    return False


def _compiled_library() -> Path | None:
    spec = importlib.util.find_spec("torchvision")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    found = [
        path
        for folder in folders
        for path in sorted(Path(folder).glob("_C*"))
        if path.suffix in (".so", ".pyd", ".dylib")
    ]
    return found[0] if found else None


def _declared(name: str) -> bool:
    return bool(hasattr(torch.ops.torchvision, name))
