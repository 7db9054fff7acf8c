"""Segments images with this student: python predict.py IMAGE…. Needs only onnxruntime, numpy and pillow."""

import ast
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def segment(session: onnxruntime.InferenceSession, image: Image.Image) -> Image.Image:
    """Returns the mask at the image's size: 255 for the object, or the numbers of the classes."""
    facts = session.get_modelmeta().custom_metadata_map
    height, width = ast.literal_eval(facts["imgsz"])
    if session.get_inputs()[0].name == "pixels":  # the graph converts, resizes and scales
        size, left, top, feed = [width, height], 0, 0, {"pixels": np.asarray(image.convert("RGB"))[None]}
    else:
        gray = image.convert("L" if facts["channels"] == "1" else "RGB")
        scale = min(height / image.height, width / image.width)
        size = [max(1, round(side * scale)) for side in image.size] if facts["fit"] == "pad" else [width, height]
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        small = Image.new(gray.mode, (width, height))
        small.paste(gray.resize(size, Image.Resampling.BILINEAR), (left, top))
        planes = np.asarray(small, np.float32).reshape(height, width, -1).transpose(2, 0, 1) / np.float32(255)
        feed = {"image": ((planes - np.float32(facts["mean"])) / np.float32(facts["std"]))[None]}
    (logits,) = session.run(None, feed)
    inside = logits[0, :, top : top + size[1], left : left + size[0]]
    maps = [np.asarray(Image.fromarray(one).resize(image.size, Image.Resampling.BILINEAR)) for one in inside]
    return Image.fromarray(np.uint8(np.argmax(maps, 0) if len(maps) > 1 else 255 * (maps[0] > 0)))


if __name__ == "__main__":
    student = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")))
    for name in sys.argv[1:]:
        scan = ImageOps.exif_transpose(Image.open(name))
        if scan.mode[0] in "IF":
            sys.exit(f"{name}: more than 8 bits; scale it to 0-255 as student.yaml says under input.whites")
        scan = Image.composite(scan.convert("RGB"), Image.new("RGB", scan.size), scan.convert("RGBA").getchannel("A"))
        segment(student, scan).save(f"{Path(name).with_suffix('')}_mask.png")
