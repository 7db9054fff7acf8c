"""Opens ONNX files with ONNX Runtime; imports only that, numpy and the standard library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kdsearch.errors import ModelError, first_line

if TYPE_CHECKING:
    import onnxruntime

MAX_BYTES = 2**31
"""ONNX's own limit for one file."""
MAX_SIDE = 4096
"""In pixels."""


def open_session(path: Path, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """Opens a model file on the CPU; ``threads`` 0 means all cores.

    ONNX Runtime gets the file's bytes, so that the model cannot make it read other files. Raises ModelError
    if the file is missing or is not a model.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; kdsearch pick writes it")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: a model must have at most {MAX_BYTES:,} bytes, got {path.stat().st_size:,}")
    return session_of(path.read_bytes(), name=str(path), threads=threads)


def session_of(content: bytes, *, name: str, threads: int = 0) -> onnxruntime.InferenceSession:
    """Opens a model from ONNX bytes; errors call it ``name``."""
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(f"{name}: onnxruntime is not installed; pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except _errors(onnxruntime) as error:
        raise ModelError(f"{name}: not a model that ONNX Runtime can open: {first_line(error)}") from error


def example_feed(session: onnxruntime.InferenceSession) -> dict[str, npt.NDArray[np.generic]]:
    """Makes a random image of the model's input size: normalized floats, or RGB bytes if the model takes those.

    Raises ModelError if the model has no fixed size.
    """
    fed = only_input(session)
    sides = [side for side in session.get_outputs()[0].shape[-2:] if isinstance(side, int)]
    if len(sides) != 2 or max(sides) > MAX_SIDE:
        raise ModelError("the model's output has no fixed height and width; export it again with kdsearch pick")
    random = np.random.default_rng(0)
    if fed.type == "tensor(uint8)":
        return {fed.name: random.integers(0, 256, (1, *sides, 3)).astype(np.uint8)}
    channels = fed.shape[1] if isinstance(fed.shape[1], int) else 1
    return {fed.name: random.standard_normal((1, channels, *sides), np.float32)}


def only_input(session: onnxruntime.InferenceSession) -> Any:
    """Returns the model's input; raises ModelError unless it is one tensor and the first output is a tensor."""
    fed, given = session.get_inputs(), session.get_outputs()
    if len(fed) != 1 or not given or not all(part.type.startswith("tensor") for part in (*fed, given[0])):
        raise ModelError(
            "the model must have one tensor as input and one as output; export it again with kdsearch pick"
        )
    return fed[0]


def run_session(
    session: onnxruntime.InferenceSession, feed: dict[str, npt.NDArray[np.generic]], *, name: str
) -> dict[str, npt.NDArray[np.generic]]:
    """Runs the model and returns all outputs by name; raises ModelError if it cannot be run."""
    import onnxruntime

    try:
        values = session.run(None, feed)
    except _errors(onnxruntime) as error:
        raise ModelError(f"{name}: cannot be run: {first_line(error)}") from error
    return dict(zip((output.name for output in session.get_outputs()), values, strict=True))


def _errors(onnxruntime: Any) -> tuple[type[Exception], ...]:
    state = onnxruntime.capi.onnxruntime_pybind11_state
    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return (*(getattr(state, name) for name in names), RuntimeError, ValueError)
