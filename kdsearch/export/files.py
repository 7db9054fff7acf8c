"""The names of the files in a picked student's folder."""

DESCRIPTION, WEIGHTS, ONNX, INT8 = "student.yaml", "model.safetensors", "model.onnx", "model.int8.onnx"
MOST_BYTES = 1_000_000
"""Of a description; a longer one is none."""
