"""What a network's ONNX file weighs and takes, before it is shipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdsearch.export.onnx_graph import to_onnx
from kdsearch.export.runtime import example_feed, session_of
from kdsearch.measure.latency import Latency, time_calls
from kdsearch.models.students import StudentNetwork


def measure_onnx(network: StudentNetwork, *, size: int) -> tuple[int, Latency]:
    """Bytes of the ONNX model, and the latency of one image on one thread."""
    prepared = prepare_onnx(network, size=size)
    return prepared.file_bytes, prepared.time()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is ready to be timed."""

    file_bytes: int
    run: Callable[[], object]

    def time(self) -> Latency:
        """The latency of one image on one thread, now."""
        return time_calls(self.run, runtime="onnxruntime", threads=1)


def prepare_onnx(network: StudentNetwork, *, size: int) -> Prepared:
    """Everything that takes long and need not be quiet."""
    content = to_onnx(network, size=size)
    session = session_of(content, name="the exported model", threads=1)
    feed = example_feed(session)
    return Prepared(len(content), lambda: session.run(None, feed))
