"""What a student's ONNX file weighs and takes, before it is shipped."""

from __future__ import annotations

from pathlib import Path

from kdsearch.distill.record import Student
from kdsearch.export.folder import load_weights
from kdsearch.export.onnx_graph import to_onnx
from kdsearch.export.runtime import example_feed, session_of
from kdsearch.measure.latency import Latency, time_calls


def measure_onnx(student: Student, weights: Path, *, size: int) -> tuple[int, Latency]:
    """Bytes of the ONNX model, and the latency of one image on one thread; raises KdsearchError without the weights."""
    content = to_onnx(load_weights(student, weights), size=size)
    session = session_of(content, name=f"trial {student.number}", threads=1)
    feed = example_feed(session)
    return len(content), time_calls(lambda: session.run(None, feed), runtime="onnxruntime", threads=1)
