"""Odd and hostile files in every reader: one clear message each, or a correct image."""

from __future__ import annotations

import io
import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.cache import load_dataset
from kdsearch.errors import DataError
from tests.data.annotated import SHAPE, WRITERS
from tests.data.pictures import write_image, write_mask
from tests.data.test_nnunet import write_nnunet

GRAY = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
COLORS = np.random.default_rng(1).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)


def _file(image: Image.Image, kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def _turned(kind: int) -> bytes:
    image = Image.fromarray(GRAY)
    image.getexif()[0x0112] = kind
    return _file(image, "PNG", exif=image.getexif())


PNG = _file(Image.fromarray(GRAY), "PNG")
HUGE = PNG[:16] + (60_000).to_bytes(4, "big") + (60_000).to_bytes(4, "big") + PNG[24:]
CASES: dict[str, tuple[bytes, bool]] = {
    "gray": (PNG, True),
    "colors": (_file(Image.fromarray(COLORS), "PNG"), True),
    "1 bit": (_file(Image.fromarray(GRAY > 128), "PNG"), True),
    "16 bits": (_file(Image.fromarray(GRAY.astype(np.uint16) * 200), "PNG"), True),
    "palette": (_file(Image.fromarray(COLORS).convert("P"), "PNG"), True),
    "palette with transparency": (_file(Image.fromarray(COLORS).convert("P"), "PNG", transparency=0), True),
    "gray with alpha": (_file(Image.fromarray(GRAY).convert("LA"), "PNG"), True),
    "colors with alpha": (_file(Image.fromarray(COLORS).convert("RGBA"), "PNG"), True),
    "JPEG named PNG": (_file(Image.fromarray(GRAY), "JPEG"), True),
    "CMYK": (_file(Image.fromarray(COLORS).convert("CMYK"), "JPEG"), True),
    "TIFF named PNG": (_file(Image.fromarray(GRAY), "TIFF"), True),
    "animated": (_file(Image.fromarray(GRAY), "PNG", save_all=True, append_images=[Image.fromarray(255 - GRAY)]), True),
    "GIF named PNG": (_file(Image.fromarray(GRAY), "GIF"), True),
    "EXIF without a turn": (_turned(1), True),
    "EXIF upside down": (_turned(3), True),
    "EXIF mirrored": (_turned(2), True),
    "EXIF of no meaning": (_turned(99), True),
    "BMP named PNG": (_file(Image.fromarray(COLORS), "BMP"), True),
    "progressive JPEG": (_file(Image.fromarray(COLORS), "JPEG", progressive=True), True),
    "WebP": (_file(Image.fromarray(COLORS), "WEBP"), True),
    "fractions": (_file(Image.fromarray(GRAY.astype(np.float32) / 255), "TIFF"), True),
    "compressed TIFF": (_file(Image.fromarray(COLORS), "TIFF", compression="tiff_lzw"), True),
    "ICC profile of no meaning": (_file(Image.fromarray(COLORS), "PNG", icc_profile=b"nothing"), True),
    "all black": (_file(Image.fromarray(np.zeros_like(GRAY)), "PNG"), True),
    "cut JPEG": (_file(Image.fromarray(COLORS), "JPEG")[:900], False),
    "empty": (b"", False),
    "text": (b"not an image\n", False),
    "cut": (PNG[: len(PNG) // 2], False),
    "only a header": (PNG[:24], False),
    "zeros": (b"\0" * 4000, False),
    "HTML": (b"<!doctype html><title>404</title>", False),
    "decompression bomb": (HUGE, False),
    "other size": (_file(Image.fromarray(GRAY[:20, :49]), "PNG"), False),
    "one pixel": (_file(Image.fromarray(GRAY[:1, :1]), "PNG"), False),
    "negative fractions": (_file(Image.fromarray(GRAY.astype(np.float32) - 300), "TIFF"), False),
    "infinite": (_file(Image.fromarray(np.full(SHAPE, np.inf, np.float32)), "TIFF"), False),
}
"""What an image file may hold, and whether it is usable."""
NAMES = ("c d", "é2", "=HYPERLINK(1)", "<script>alert(1)", 'it\'s "quoted"', "line\nbreak", "-rf", "a;b&c")
READERS = ("folder", "nnunet", "coco", "yolo", "labelme", "cvat")


def _make(reader: str, folder: Path) -> tuple[DataConfig, Path]:
    """A small data set; returns its configuration and the image that is replaced."""
    folder.mkdir()
    source: dict[str, object] = {"reader": reader, "folder": str(folder)}
    data: dict[str, object] = {"sources": [source], "size": 32, "on_invalid": "skip"}
    if reader == "folder":
        for index in range(3):
            write_image(folder / "images" / f"{index}.png", shape=SHAPE, seed=index)
            write_mask(folder / "masks" / f"{index}.png", shape=SHAPE)
    elif reader == "nnunet":
        write_nnunet(folder, cases=3, test=0)
        data |= {"classes": ["background", "lesion", "cyst"], "ignore": 3}
    else:
        WRITERS[reader](folder)
        data |= {"classes": ["background", "lesion", "cyst"]}
    image = min(path for path in folder.rglob("*.png") if path.parent.name not in ("masks", "labelsTr"))
    return DataConfig.model_validate_json(json.dumps(data)), image


def _load(config: DataConfig, home: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_dataset(config, home)


def _slow(reader: str, case: str):
    """Readers of annotation files share how images are decoded, so that one of them is enough by default."""
    return pytest.param(reader, case, marks=pytest.mark.slow if reader in ("yolo", "labelme", "cvat") else ())


@pytest.mark.parametrize(("reader", "case"), itertools.starmap(_slow, itertools.product(READERS, CASES)))
def test_image_is_read_or_left_out_with_one_message(tmp_path, reader, case):
    config, image = _make(reader, tmp_path / "set")
    content, usable = CASES[case]
    usable = usable or (reader == "yolo" and case in ("other size", "one pixel"))  # its points are relative
    image.write_bytes(content)
    dataset = _load(config, tmp_path / "home")
    assert len(dataset.images) == len(dataset.masks) == len(dataset.infos) == (3 if usable else 2)
    assert len(dataset.skipped) == (0 if usable else 1)
    if not usable:
        assert image.stem.removesuffix("_0000") in dataset.skipped[0]
        with pytest.raises(DataError, match="1 file cannot be used"):
            _load(config.model_copy(update={"on_invalid": "error"}), tmp_path / "home")
    again = _load(config, tmp_path / "home")
    assert again.fingerprint == dataset.fingerprint
    np.testing.assert_array_equal(again.images, dataset.images)


MASKS: dict[str, tuple[bytes, str]] = {
    "JPEG": (_file(Image.fromarray((GRAY > 128).astype(np.uint8) * 255), "JPEG", quality=40), "more than two gray"),
    "smoothed": (_file(Image.fromarray(GRAY), "PNG"), "more than two gray values"),
    "other shape": (_file(Image.fromarray(GRAY[:20] > 128), "PNG"), "mask is 50×20 pixels, but its image is 50×40"),
    "cut": (PNG[:300], "cannot be decoded"),
    "empty": (b"", "cannot be decoded"),
    "infinite": (_file(Image.fromarray(np.full(SHAPE, np.inf, np.float32)), "TIFF"), "infinite"),
    "two colors": (
        _file(Image.fromarray(np.where(GRAY[..., None] > 128, [76, 76, 76], [254, 0, 0]).astype(np.uint8)), "PNG"),
        "two colors of the same brightness",
    ),
}


@pytest.mark.parametrize("case", MASKS)
def test_mask_of_two_values_is_left_out_with_the_reason(tmp_path, case):
    config, _ = _make("folder", tmp_path / "set")
    content, message = MASKS[case]
    (tmp_path / "set" / "masks" / "1.png").write_bytes(content)
    dataset = _load(config, tmp_path / "home")
    assert len(dataset.infos) == 2
    assert message in dataset.skipped[0]


@pytest.mark.parametrize("case", ["smoothed", "other shape", "cut", "empty", "infinite"])
def test_mask_of_class_numbers_is_left_out_with_the_reason(tmp_path, case):
    config, _ = _make("nnunet", tmp_path / "set")
    next((tmp_path / "set" / "labelsTr").glob("*.png")).write_bytes(MASKS[case][0])
    dataset = _load(config, tmp_path / "home")
    assert len(dataset.infos) == 2
    assert len(dataset.skipped) == 1


@pytest.mark.parametrize(("reader", "name"), itertools.product(("folder", "nnunet", "coco", "yolo", "labelme"), NAMES))
def test_any_name_that_a_file_system_allows_is_read(tmp_path, reader, name):
    config, image = _make(reader, tmp_path / "set")
    old = image.stem.removesuffix("_0000")
    for path in sorted((tmp_path / "set").rglob("*.json")):
        text = path.read_text(encoding="utf-8").replace(f'"{old}.png"', json.dumps(f"{name}.png"))
        path.write_text(text, encoding="utf-8")
    for path in sorted((tmp_path / "set").rglob(f"{old}*")):
        path.rename(path.with_name(path.name.replace(old, name, 1)))
    dataset = _load(config, tmp_path / "home")
    assert any(name in info.id for info in dataset.infos)
    assert len(dataset.infos) == 3
    assert not dataset.skipped


@pytest.mark.parametrize(
    ("reader", "content"),
    itertools.product(("coco", "labelme", "cvat", "yolo", "nnunet"),
                      (b"", b"{", b"[]", b"null", b"{}", b'{"images": 3}', b"\xff\xfe\0", b"<a/>", b"<!ENTITY", b"7")),
)  # fmt: skip
def test_description_that_is_no_data_set_is_an_error_and_no_traceback(tmp_path, reader, content):
    config, _ = _make(reader, tmp_path / "set")
    names = {"yolo": "data.yaml", "nnunet": "dataset.json", "cvat": "annotations.xml"}
    for path in (tmp_path / "set").rglob("*.json" if reader in ("coco", "labelme") else names[reader]):
        path.write_bytes(content)
    with pytest.raises(DataError):
        _load(config, tmp_path / "home")
    assert not list((tmp_path / "home" / "data").glob("*/images.npy")), "nothing half-written"
