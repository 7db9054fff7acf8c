"""Odd and hostile DICOM files: one clear message each, or a correct image."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.dicom import is_dicom
from kdsearch.errors import DataError
from kdsearch.workflow.predict import find_images
from tests.data.scans import saved, write_scan, write_segmentation

SHAPE = (40, 50)
GRAY = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
BOX = np.zeros(SHAPE, bool)
BOX[10:30, 10:30] = True


def _data_set(root):
    """Two images with masks as images, and ``a.dcm`` with a mask, which is replaced."""
    root.mkdir()
    for index, name in enumerate(("a", "b", "c")):
        write_scan(root / f"{name}.dcm", np.roll(GRAY, 7 * index), PatientID=name)
        Image.fromarray(BOX).save(root / f"{name}_mask.png")
    sources = [{"reader": "dicom", "folder": str(root)}]
    return DataConfig.model_validate_json(json.dumps({"sources": sources, "size": 32, "on_invalid": "skip"}))


def _png():
    out = io.BytesIO()
    Image.fromarray(GRAY).save(out, "PNG")
    return out.getvalue()


def _changed(path, change):
    content = path.read_bytes()
    path.write_bytes(change(content))


def _without(*names):
    def write(path):
        scan = write_scan(path, GRAY)
        for name in names:
            del scan[name]
        saved(scan, path)

    return write


def _with(**fields):
    return lambda path: write_scan(path, GRAY, **fields)


def _compressed(syntax, change=lambda content: content):
    def write(path):
        write_scan(path, GRAY, compressed=syntax)
        _changed(path, change)

    return write


def _of_syntax(uid):
    def write(path):
        scan = write_scan(path, GRAY)
        _changed(path, lambda content: content.replace(scan.file_meta.TransferSyntaxUID.encode(), uid))

    return write


def _bytes(change):
    def write(path):
        write_scan(path, GRAY)
        _changed(path, change)

    return write


BAD = {
    "empty": (_bytes(lambda _: b""), "is not a DICOM file"),
    "text": (_bytes(lambda _: b"hello"), "is not a DICOM file"),
    "PNG": (_bytes(lambda _: _png()), "is not a DICOM file"),
    "without preamble": (_bytes(lambda content: content[132:]), "is not a DICOM file"),
    "only the preamble": (_bytes(lambda content: content[:132]), None),
    "cut in the header": (_bytes(lambda content: content[:400]), None),
    "cut in the pixels": (_bytes(lambda content: content[:-900]), "its pixels"),
    "garbage after the preamble": (_bytes(lambda content: content[:132] + b"\xff" * 500), None),
    "zeros after the preamble": (_bytes(lambda content: content[:132] + bytes(500)), None),
    "no pixels": (_without("PixelData"), "its pixels are missing"),
    "no rows": (_without("Rows"), None),
    "no photometric interpretation": (_without("PhotometricInterpretation"), None),
    "no bits": (_without("BitsAllocated"), "its pixels"),
    "no samples": (_without("SamplesPerPixel"), "its pixels"),
    "zero rows": (_with(Rows=0), "0 pixels"),
    "too many rows": (_with(Rows=60000, Columns=60000), "at most 100,000,000"),
    "more rows than pixels": (_with(Rows=400), "its pixels"),
    "more frames than pixels": (_with(NumberOfFrames=4), "frames it belongs to"),
    "zero frames is one": (_with(NumberOfFrames=0), None),
    "negative frames": (_with(NumberOfFrames=-3), "-3 frames"),
    "a million frames": (_with(NumberOfFrames=1_000_000), "1000000 frames"),
    "unknown colors": (_with(PhotometricInterpretation="HSV"), "colors of another kind"),
    "palette without tables": (_with(PhotometricInterpretation="PALETTE COLOR"), "damaged"),
    "unknown transfer syntax": (_of_syntax(b"1.2.840.10008.1.2.9"), "stored as an unknown format"),
    "video": (_of_syntax(b"1.2.840.10008.1.2.4.102"), None),
    "HTJ2K": (_of_syntax(b"1.2.840.10008.1.2.4.201"), None),
    "uncompressed, said to be JPEG": (_of_syntax(b"1.2.840.10008.1.2.4.50"), None),
    "cut JPEG 2000": (_compressed("JPEG2000Lossless", lambda content: content[:-700]), "its pixels"),
    "cut JPEG-LS": (_compressed("JPEGLSLossless", lambda content: content[:-700]), "its pixels"),
    "cut lossless JPEG": (_compressed("JPEGLosslessProcess14_1", lambda content: content[:-700]), "its pixels"),
    "cut RLE": (_compressed("RLELossless", lambda content: content[:-900]), "its pixels"),
    "other size than its mask": (lambda path: write_scan(path, GRAY[:, :20]), "but its image is 20×40"),
    "zero width window": (_with(WindowCenter=5, WindowWidth=0), ""),
    "empty window": (_with(WindowCenter="", WindowWidth=""), ""),
    "no patient": (_without("PatientID"), ""),
    "no study": (_without("PatientID", "StudyInstanceUID"), ""),
    "spacing of one number": (_with(ImagerPixelSpacing=[0.1, 0.1], PixelSpacing=None), ""),
}
"""How ``a.dcm`` is written and a part of the message; an empty text if it is usable, None if only a message matters."""


@pytest.mark.parametrize("case", BAD)
def test_scan_is_read_or_left_out_with_one_message(tmp_path, case):
    config = _data_set(tmp_path / "set")
    write, message = BAD[case]
    if case == "spacing of one number":
        write_scan(tmp_path / "set" / "a.dcm", GRAY, ImagerPixelSpacing=[0.1, 0.1])
    else:
        write(tmp_path / "set" / "a.dcm")
    dataset = load_dataset(config, tmp_path / "home")
    usable = message == "" or case == "zero frames is one"
    assert len(dataset.infos) == (3 if usable else 2)
    if usable:
        assert not dataset.skipped
        return
    (about,) = dataset.skipped
    assert "a.dcm" in about or "a_mask.png" in about
    assert (message or "") in about
    with pytest.raises(DataError):
        load_dataset(config.model_copy(update={"on_invalid": "error"}), tmp_path / "home")


def _segmentation(path, uid, *, change=None, **fields):
    write_segmentation(path, {(uid, fields.pop("frame", 1), "Lesion"): fields.pop("mask", BOX)}, **fields)
    if change is not None:
        _changed(path, change)


SEGMENTATIONS = {
    "another image": ({"uid": "1.2.3"}, "belongs to an image that is not in the folder"),
    "another frame": ({"frame": 9}, "belongs to frame 9 of an image with 1 frames"),
    "another size": ({"mask": BOX[:, :20]}, "mask is 20×40 pixels, but its image is 50×40"),
    "no frames": ({"PerFrameFunctionalGroupsSequence": []}, None),
    "no segments": ({"SegmentSequence": []}, "damaged (KeyError)"),
    "label map": ({"SegmentationType": "LABELMAP"}, "is a label map; save it as a binary segmentation"),
    "cut": ({"change": lambda content: content[:-200]}, "its pixels"),
}


@pytest.mark.parametrize("case", SEGMENTATIONS)
def test_segmentation_that_fits_no_image_is_one_message(tmp_path, case):
    config = _data_set(tmp_path / "set")
    (tmp_path / "set" / "a_mask.png").unlink()
    scan = write_scan(tmp_path / "set" / "a.dcm", GRAY)
    how, message = SEGMENTATIONS[case]
    _segmentation(tmp_path / "set" / "seg.dcm", **{"uid": scan.SOPInstanceUID, **how})
    dataset = load_dataset(config, tmp_path / "home")
    assert len(dataset.infos) == 2
    assert (message or "") in "\n".join(dataset.skipped)


def test_files_without_ending_and_other_dicom_objects(tmp_path):
    _data_set(tmp_path / "set")
    report = write_scan(tmp_path / "set" / "REPORT", GRAY)
    for name in ("Rows", "Columns", "PixelData", "PhotometricInterpretation"):
        del report[name]
    saved(report, tmp_path / "set" / "REPORT")
    (tmp_path / "set" / "a.dcm").rename(tmp_path / "set" / "a")
    config = _data_set(tmp_path / "other").model_copy(update={"sources": ()})
    assert config.sources == ()
    source = {"reader": "dicom", "folder": str(tmp_path / "set")}
    dataset = load_dataset(
        DataConfig.model_validate_json(json.dumps({"sources": [source], "size": 32})), tmp_path / "home"
    )
    assert len(dataset.infos) == 3
    assert any("1 other files, which are ignored" in str(remark) for remark in dataset.remarks)


def test_frames_of_a_clip_are_predicted_each(tmp_path):
    write_scan(tmp_path / "in" / "clip.dcm", np.stack([GRAY, GRAY, GRAY]))
    write_scan(tmp_path / "in" / "1.2.840.5", GRAY)
    (tmp_path / "in" / "notes.txt").write_text("x", encoding="utf-8")
    assert is_dicom(tmp_path / "in" / "1.2.840.5")
    found = find_images([str(tmp_path / "in")], tmp_path / "out")
    assert [(one.place.name, one.frame) for one in found.images] == [
        ("1.2.840.5", 0), ("clip_0001", 0), ("clip_0002", 1), ("clip_0003", 2)
    ]  # fmt: skip
    assert found.passed_over == (f"skipped files with other endings: 1, such as {tmp_path / 'in' / 'notes.txt'}",)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("a.dcm", "reader: dicom"), ("a.nii.gz", "nibabel"), ("a.nrrd", "save the slices as PNG")],
)
def test_folder_of_scans_or_volumes_names_what_reads_them(tmp_path, name, remedy):
    if name.endswith("dcm"):
        write_scan(tmp_path / name, GRAY)
    else:
        (tmp_path / name).write_bytes(b"volume")
    sources = [{"reader": "folder", "folder": str(tmp_path)}]
    with pytest.raises(DataError, match=remedy):
        load_dataset(DataConfig.model_validate_json(json.dumps({"sources": sources})), tmp_path / "home")
