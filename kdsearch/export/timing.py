"""Measures a student's latency with ONNX Runtime and torch, and names the files in its folder.

``kdsearch bench`` imports this module on small devices, so it needs only onnxruntime and numpy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.errors import ModelError
from kdsearch.files.digests import digest_file
from kdsearch.files.onnx_runtime import example_feed, open_session, run_session
from kdsearch.measure.latency import Latency, cores, time_calls
from kdsearch.measure.threads import using_threads

if TYPE_CHECKING:
    from torch import nn

    from kdsearch.config.task import Task

DESCRIPTION, WEIGHTS, ONNX, INT8 = "student.yaml", "model.safetensors", "model.onnx", "model.int8.onnx"
FILES = (ONNX, INT8)
MOST_BYTES = 1_000_000
"""Longer files are not read as a description."""


def time_folder(folder: Path) -> list[Latency]:
    """Times each ONNX file of the folder with one image, on one thread and on all; needs only onnxruntime and numpy.

    Raises ModelError if the folder contains no ONNX file or a file cannot be run.
    """
    paths = [folder / name for name in FILES if (folder / name).is_file()]
    if not paths:
        raise ModelError(f"{folder}: contains neither {ONNX} nor {INT8}; give a folder that kdsearch pick wrote")
    for path in paths:
        _require_unchanged(path)
    return [time_file(path, threads=threads) for path in paths for threads in thread_counts()]


def _require_unchanged(path: Path) -> None:
    """Compares the file's checksum with the description next to it, if there is one, without a YAML library."""
    description = path.with_name(DESCRIPTION)
    if not description.is_file():
        return
    with description.open("rb") as file:
        text = file.read(MOST_BYTES).decode(errors="replace")
    if not re.search(rf"^ +{re.escape(path.name)}: {digest_file(path)}$", text, re.MULTILINE):
        raise ModelError(f"{path}: not the file that {DESCRIPTION} describes; run kdsearch pick again")


def thread_counts() -> list[int]:
    """Returns one thread and all cores."""
    return sorted({1, cores()})


def time_file(path: Path, *, threads: int) -> Latency:
    """Times the ONNX file with one image of the model's size, also if the model accepts any size."""
    import onnxruntime

    session = open_session(path, threads=threads)
    feed = example_feed(session)
    run_session(session, feed, name=str(path))
    runtime = f"{path.name}, onnxruntime {onnxruntime.__version__}"
    return time_calls(lambda: session.run(None, feed), runtime=runtime, threads=threads)


def time_torch(network: nn.Module, task: Task, *, threads: int) -> Latency:
    """Times the torch network with one image, on the CPU."""
    import torch

    image = torch.zeros(task.input_shape).to(memory_format=torch.channels_last)
    with using_threads(threads), torch.inference_mode():
        return time_calls(lambda: network(image), runtime=f"torch {torch.__version__}", threads=threads)
