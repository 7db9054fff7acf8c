"""Exports a student to ONNX, optionally with preprocessing or in 8 bits, and measures its size and latency."""

from __future__ import annotations

import contextlib
import datetime
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import compose, parser
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.torch import load

from kdsearch.config.networks import StudentSpec
from kdsearch.config.task import Task
from kdsearch.files.onnx_runtime import example_feed, session_of
from kdsearch.measure.latency import Latency, time_calls
from kdsearch.models.contract import INPUT_MEAN, INPUT_STD
from kdsearch.models.students import StudentNetwork, build_student
from kdsearch.version import __version__

OPSET = 20
IMAGE, PIXELS, LOGITS = "image", "pixels", "logits"
"""Names of the input without preprocessing, of the input with preprocessing, and of the output."""

PREPROCESSING = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
preprocessing (uint8[batch, height, width, 3] pixels) => (float[batch, 1, {height}, {width}] image)
<float[3, 1] weights = {{0.299, 0.587, 0.114}}, int64[2] size = {{{height}, {width}}},
 int64[1] last = {{3}}, int64[1] second = {{1}},
 float mean = {{{mean}}}, float std = {{{std}}}, float white = {{255.0}}>
{{
  colors = Cast<to = 1>(pixels)
  luma = MatMul(colors, weights)
  gray = Round(luma)
  flat = Squeeze(gray, last)
  planes = Unsqueeze(flat, second)
"""
PREPROCESSING_COLOR = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
preprocessing (uint8[batch, height, width, 3] pixels) => (float[batch, 3, {height}, {width}] image)
<int64[2] size = {{{height}, {width}}}, int64[1] last = {{3}}, int64[1] second = {{1}}, int64 red = {{0}},
 int64 green = {{1}}, int64 blue = {{2}}, float mean = {{{mean}}}, float std = {{{std}}}, float white = {{255.0}}>
{{
  colors = Cast<to = 1>(pixels)
  reds = Gather<axis = 3>(colors, red)
  greens = Gather<axis = 3>(colors, green)
  blues = Gather<axis = 3>(colors, blue)
  red_plane = Unsqueeze(reds, second)
  green_plane = Unsqueeze(greens, second)
  blue_plane = Unsqueeze(blues, second)
  planes = Concat<axis = 1>(red_plane, green_plane, blue_plane)
"""
SCALING = """
  small = Resize<mode = "linear", antialias = 1, exclude_outside = 1, axes = [2, 3],
                 coordinate_transformation_mode = "half_pixel">(planes, , , size)
  levels = Round(small)
  shares = Div(levels, white)
  centered = Sub(shares, mean)
  image = Div(centered, std)
}}
"""
"""The same as ``kdsearch.data.pixels`` and ``normalize``, except that some pixels differ by a gray level because Pillow
rounds more often.

Squeeze and Unsqueeze do what Transpose could, because ONNX Runtime 1.32 cannot optimize an 8-bit model after Transpose.
"""


def to_onnx(network: StudentNetwork, task: Task) -> bytes:
    """Exports the network to a checked ONNX model: normalized ``image`` N×C×H×W to ``logits`` N×K×H×W, for any N."""
    network.eval()
    with _quietly(), tempfile.TemporaryDirectory() as folder:
        program = torch.onnx.export(
            network,
            (torch.zeros(task.input_shape).repeat(2, 1, 1, 1),),
            dynamo=True,
            verbose=False,
            input_names=[IMAGE],
            output_names=[LOGITS],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
        )
        assert program is not None
        path = Path(folder) / "model.onnx"
        program.save(str(path), external_data=False)
        model = onnx.load(path)
    return _checked(_without_traces(model))


def with_preprocessing(content: bytes, task: Task) -> bytes:
    """Adds preprocessing to a model of ``to_onnx``: its input becomes ``pixels`` N×H×W×3, 0-255, of any size."""
    model = onnx.load_from_string(content)
    text = ((PREPROCESSING if task.channels == 1 else PREPROCESSING_COLOR) + SCALING).format(
        ir=model.ir_version, opset=OPSET, height=task.height, width=task.width, mean=INPUT_MEAN, std=INPUT_STD
    )
    before = compose.add_prefix(parser.parse_model(text), "preprocessing/", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_models(before, model, io_map=[(IMAGE, IMAGE)], name="student")
    return _checked(merged)


def mark(content: bytes, notes: Mapping[str, str]) -> bytes:
    """Adds notes to the model's metadata."""
    model = onnx.load_from_string(content)
    for key, value in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return bytes(model.SerializeToString())


def facts_about(task: Task, *, names: Sequence[str], fit: str) -> dict[str, str]:
    """Notes for other programs, under the keys that Ultralytics' exports use, with those of the input added.

    ``names`` are those of the classes other than the background.
    """
    return {
        "description": "segmentation student of kdsearch",
        "task": "segment",
        "names": repr(dict(enumerate(("background", *names)))),
        "imgsz": repr([task.height, task.width]),
        "channels": str(task.channels),
        "fit": fit,
        "mean": str(INPUT_MEAN),
        "std": str(INPUT_STD),
        "version": __version__,
        "license": "see MODEL_CARD.md",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _checked(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Removes the exporter's notes, which contain paths of this machine."""
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        part.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("doc_string")
    return model


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hides the warnings of torch's exporter about its own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def measure_onnx(network: StudentNetwork, task: Task) -> tuple[int, Latency]:
    """Returns the size of the ONNX model in bytes and its latency for one image on one thread."""
    prepared = prepare_onnx(to_onnx(network, task))
    return prepared.file_bytes, prepared.time()


def export_trained(student: StudentSpec, weights: bytes, *, task: Task) -> bytes:
    """Exports the student with these safetensors weights to ONNX, and runs it once with ONNX Runtime."""
    network = build_student(student, channels=task.channels, outputs=task.outputs, begun=False)
    network.load_state_dict(load(weights))
    content = to_onnx(network, task)
    prepare_onnx(content).run()
    return content


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is opened and can be timed."""

    file_bytes: int
    run: Callable[[], object]

    def time(self) -> Latency:
        """Measures the latency of one image on one thread."""
        return time_calls(self.run, runtime="onnxruntime", threads=1)


def prepare_onnx(content: bytes) -> Prepared:
    """Opens a model of ``to_onnx``; raises ModelError if ONNX Runtime cannot open it."""
    session = session_of(content, name="the exported model", threads=1)
    feed = example_feed(session)
    return Prepared(len(content), lambda: session.run(None, feed))


CALIBRATION_IMAGES = 128


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no annotations
    """Gives the images to ONNX Runtime one by one."""

    def __init__(self, images: npt.NDArray[np.float32]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {IMAGE: image[None]}


def quantize(content: bytes, images: npt.NDArray[np.float32]) -> bytes:
    """Quantizes the ONNX model to 8-bit weights and activations (QDQ, weights per channel).

    ``images`` are normalized training images N×C×H×W that calibrate the ranges of the activations (static
    quantization of ONNX Runtime).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "float.onnx").write_bytes(content)
        quant_pre_process(str(folder / "float.onnx"), str(folder / "shaped.onnx"), skip_symbolic_shape=True)
        quantize_static(
            str(folder / "shaped.onnx"),
            str(folder / "int8.onnx"),
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return (folder / "int8.onnx").read_bytes()
