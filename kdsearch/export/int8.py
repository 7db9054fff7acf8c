"""A student in whole numbers of eight bits, for processors that are fast with them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from kdsearch.export.onnx_graph import IMAGE

CALIBRATION_IMAGES = 128


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no annotations
    """One image after the other, as ONNX Runtime wants to be fed."""

    def __init__(self, images: npt.NDArray[np.float32]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {IMAGE: image[None]}


def quantise(content: bytes, images: npt.NDArray[np.float32]) -> bytes:
    """The ONNX model with weights and activations of eight bits (QDQ, weights per channel).

    ``images`` N×1×S×S, normalised, are training images; from them it is learnt which values activations take
    (ONNX Runtime's static quantisation).
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
