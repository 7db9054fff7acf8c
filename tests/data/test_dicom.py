"""DICOM images, clips and segmentations."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from kdsearch.config.data import DataConfig
from kdsearch.data.cache import load_dataset, load_unlabelled
from kdsearch.data.dicom import header
from kdsearch.data.dicom_folder import read_dicom
from kdsearch.data.native import native_images
from kdsearch.data.pixels import decoded
from kdsearch.data.splits import split
from kdsearch.errors import DataError
from kdsearch.workflow.init import inspect
from tests.data.scans import write_scan, write_segmentation

SHAPE = (40, 50)
BOX = np.zeros(SHAPE, bool)
BOX[10:30, 10:30] = True


def _gray(seed=0, *, frames=None, most=256, dtype=np.uint8):
    shape = SHAPE if frames is None else (frames, *SHAPE)
    return np.random.default_rng(seed).integers(0, most, shape).astype(dtype)


def _config(root, *, unlabelled=(), source=None, **data):
    sources = [{"reader": "dicom", "folder": str(root), **(source or {})}]
    content = {"sources": sources, "size": 32, "unlabelled": list(unlabelled), **data}
    return DataConfig.model_validate_json(json.dumps(content))


def write_clips(root, *, clips=6, frames=3):
    """One clip for each patient, with a segmentation of every frame."""
    for index in range(clips):
        fields = {"PatientID": f"MRN{index}", "BurnedInAnnotation": "NO"}
        clip = write_scan(root / f"clip{index}.dcm", _gray(index, frames=frames), **fields)
        masks = {(clip.SOPInstanceUID, frame, "Lesion"): BOX for frame in range(1, frames + 1)}
        write_segmentation(root / f"clip{index}-seg.dcm", masks, PatientID=f"MRN{index}")
    return root


def _window(center, width, **more):
    return {"WindowCenter": center, "WindowWidth": width, **more}


def _table(entries, first=0, bits=8, *, wide=True):
    table = Dataset()
    table.LUTDescriptor = [len(entries), first, bits]
    table.LUTData = np.array(entries, "<u2" if wide else "u1").tobytes()
    return [table]


@pytest.mark.parametrize(
    ("dtype", "bits", "fields", "wanted"),
    [
        (np.uint8, 8, {}, lambda x: x),
        (np.uint8, 8, {"PhotometricInterpretation": "MONOCHROME1"}, lambda x: 255 - x),
        # PS3.3 C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5)
        (np.uint16, 12, _window(1000, 401), lambda x: 255 * np.clip((x - 999.5) / 400 + 0.5, 0, 1)),
        (np.uint16, 12, _window([1000, 5], [401, 9]), lambda x: 255 * np.clip((x - 999.5) / 400 + 0.5, 0, 1)),
        (
            np.uint16,
            12,
            _window(1000, 400, VOILUTFunction="LINEAR_EXACT"),
            lambda x: 255 * np.clip((x - 1000) / 400 + 0.5, 0, 1),
        ),
        (
            np.uint16,
            12,
            _window(1000, 400, VOILUTFunction="SIGMOID"),
            lambda x: 255 / (1 + np.exp(-4 * (x - 1000) / 400)),
        ),
        (
            np.int16,
            16,
            _window(40, 401, RescaleSlope=2, RescaleIntercept=-1000),
            lambda x: 255 * np.clip((2 * x - 1000 - 39.5) / 400 + 0.5, 0, 1),
        ),
        (np.uint8, 8, {"VOILUTSequence": _table(range(255, -1, -1))}, lambda x: 255 - x),
        (np.uint8, 8, {"VOILUTSequence": _table(range(255, -1, -1), wide=False)}, lambda x: 255 - x),
        (np.uint8, 8, {"VOILUTSequence": _table(range(100), 50, 8)}, lambda x: np.clip(x - 50, 0, 99)),
    ],
)
def test_gray_values_are_rescaled_windowed_and_inverted_as_the_standard_says(tmp_path, dtype, bits, fields, wanted):
    pixels = _gray(most=2 ** min(bits, 12), dtype=dtype)
    write_scan(tmp_path / "a.dcm", pixels, bits=bits, **fields)
    found = np.asarray(decoded(tmp_path / "a.dcm"))
    assert found.dtype == np.uint8
    assert np.abs(found - wanted(pixels.astype(float))).max() <= 0.51


def test_signed_values_without_a_window_start_at_0(tmp_path):
    pixels = _gray(most=2000, dtype=np.int16) - np.int16(1000)
    write_scan(tmp_path / "a.dcm", pixels, bits=12)
    np.testing.assert_array_equal(np.asarray(decoded(tmp_path / "a.dcm")), pixels.astype(int) + 2048)


def test_gray_values_agree_with_pydicoms_own_functions(tmp_path):
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    fields = _window(600, 900, RescaleSlope=1.5, RescaleIntercept=-200)
    scan = write_scan(tmp_path / "a.dcm", pixels := _gray(most=4096, dtype=np.uint16), bits=12, **fields)
    theirs = apply_voi_lut(apply_modality_lut(pixels, scan), scan)
    low, high = theirs.min(), theirs.max()
    ours = np.asarray(decoded(tmp_path / "a.dcm"))
    assert np.abs(ours - 255 * (theirs - low) / (high - low)).max() <= 0.51


def _group(**sequences):
    group = Dataset()
    for name, fields in sequences.items():
        item = Dataset()
        for field, value in fields.items():
            setattr(item, field, value)
        setattr(group, name, [item])
    return group


def test_each_frame_has_its_own_window_and_all_share_the_spacing(tmp_path):
    """Enhanced objects: PS3.3, C.7.6.16."""
    windows = [_group(FrameVOILUTSequence=_window(100 * frame, 201)) for frame in (1, 2)]
    shared = _group(PixelMeasuresSequence={"PixelSpacing": [0.3, 0.3]})
    pixels = np.full((2, *SHAPE), 150, np.uint16)
    write_scan(
        tmp_path / "a.dcm",
        pixels,
        bits=12,
        PerFrameFunctionalGroupsSequence=windows,
        SharedFunctionalGroupsSequence=[shared],
    )
    values = [int(np.asarray(decoded(tmp_path / "a.dcm", frame))[0, 0]) for frame in (0, 1)]
    assert values == [round(255 * (50.5 / 200 + 0.5)), round(255 * (-49.5 / 200 + 0.5))]
    assert header(tmp_path / "a.dcm").spacing_mm == pytest.approx(0.3)


@pytest.mark.parametrize("compressed", ["RLELossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"])
@pytest.mark.parametrize("shape", [(3, *SHAPE), (3, *SHAPE, 3), SHAPE])
def test_compressed_frames_equal_the_uncompressed_ones(tmp_path, compressed, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_scan(tmp_path / "plain.dcm", pixels)
    write_scan(tmp_path / "small.dcm", pixels, compressed=compressed)
    frames = header(tmp_path / "small.dcm").frames
    assert frames == (1 if shape == SHAPE else 3)
    for frame in range(frames):
        np.testing.assert_array_equal(
            np.asarray(decoded(tmp_path / "small.dcm", frame)), np.asarray(decoded(tmp_path / "plain.dcm", frame))
        )
    assert np.asarray(decoded(tmp_path / "small.dcm")).shape[:2] == SHAPE


def test_palettes_become_colors(tmp_path):
    fields = {"PhotometricInterpretation": "PALETTE COLOR"}
    for place, name in enumerate(("Red", "Green", "Blue")):
        fields[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        table = (np.roll(np.arange(256), place) << 8).astype("<u2")
        fields[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    write_scan(tmp_path / "a.dcm", pixels := _gray(), **fields)
    wanted = np.stack([pixels, pixels - np.uint8(1), pixels - np.uint8(2)], axis=2)
    np.testing.assert_array_equal(np.asarray(decoded(tmp_path / "a.dcm")), wanted)


def test_frames_of_a_clip_and_clips_of_a_patient_are_one_group(tmp_path):
    write_clips(tmp_path / "in")
    second = write_scan(tmp_path / "in" / "z.dcm", _gray(9), PatientID="MRN0")
    write_segmentation(tmp_path / "in" / "z-seg.dcm", {(second.SOPInstanceUID, 1, "Lesion"): BOX})
    dataset = load_dataset(_config(tmp_path / "in"), tmp_path / "home")
    groups = {info.id: info.group for info in dataset.infos}
    assert len(groups) == 19
    assert groups["dicom/clip0/0001"] == groups["dicom/clip0/0003"] == groups["dicom/z"] == "patient 1"
    assert groups["dicom/clip1/0001"] == "patient 2"
    assert (dataset.masks[:, 8:24, 7:19] == 1).all()
    split(dataset, _config(tmp_path / "in").split, train_on_negatives=False)


@pytest.mark.parametrize(("group", "count"), [("patient", 1), ("study", 2), ("file", 3)])
def test_groups_are_patients_examinations_or_files(tmp_path, group, count):
    for name, study in (("a", "1.2.3"), ("b", "1.2.3"), ("c", "1.2.4")):
        scan = write_scan(tmp_path / f"{name}.dcm", _gray(), StudyInstanceUID=study, PatientID="0")
        write_segmentation(tmp_path / f"{name}-seg.dcm", {(scan.SOPInstanceUID, 1, "Lesion"): BOX})
    listing = read_dicom(tmp_path, group=group)
    assert len({entry.group for entry in listing.entries}) == count
    hinted = any("group: study" in str(remark) for remark in listing.remarks)
    assert hinted == (group == "patient")


def test_patient_in_two_sources_is_one_group_and_its_unlabelled_frames_stay_out_of_training(tmp_path):
    write_clips(tmp_path / "in")
    for index in range(6):
        write_scan(tmp_path / "more" / f"{index}.dcm", _gray(100 + index, frames=4), PatientID=f"MRN{index}")
    write_scan(tmp_path / "more" / "other.dcm", _gray(200, frames=4), PatientID="another")
    unlabelled = {"reader": "dicom", "name": "more", "folder": str(tmp_path / "more"), "every": 2}
    config = _config(tmp_path / "in", unlabelled=[unlabelled])
    dataset = load_dataset(config, tmp_path / "home")
    splits = split(dataset, config.split, train_on_negatives=False)
    part = load_unlabelled(config, tmp_path / "home", dataset, splits)
    used = {part.whole.infos[place].id for place in part.positions}
    held_out = {dataset.infos[place].id[10] for place in (*splits.validation, *splits.test)}
    wanted = {name for name in [*"012345", "other"] if name not in held_out}
    assert held_out
    assert used == {f"more/{name}/{frame:04d}" for name in wanted for frame in (1, 3)}


def test_every_skips_frames_with_masks(tmp_path):
    write_clips(tmp_path, clips=1, frames=5)
    assert [entry.id for entry in read_dicom(tmp_path, every=2).entries] == ["clip0/0001", "clip0/0003", "clip0/0005"]


def test_masks_may_be_images_named_like_files_and_frames(tmp_path):
    write_scan(tmp_path / "scan.dcm", _gray())
    write_scan(tmp_path / "1.2.840.77", _gray(1))
    write_scan(tmp_path / "clips" / "clip.dcm", _gray(2, frames=12))
    masks = ["scan_mask.png", "masks/1.2.840.77.png", "clips/clip_0007_mask.png", "masks/clip_12.png"]
    for name in masks:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(BOX).save(tmp_path / name)
    listing = read_dicom(tmp_path)
    assert not listing.defects
    found = {entry.id: (entry.frame, entry.masks) for entry in listing.entries}
    frames = {"scan": 0, "1.2.840.77": 0, "clips/clip/0007": 6, "clips/clip/0012": 11}
    names = ("scan", "1.2.840.77", "clips/clip/0007", "clips/clip/0012")
    assert found == {name: (frames[name], (tmp_path / mask,)) for name, mask in zip(names, masks, strict=True)}
    assert any("without a mask" in str(remark) and str(remark).startswith("10 ") for remark in listing.remarks)


def test_images_of_the_same_name_have_different_ids(tmp_path):
    for name in ("a.dcm", "a.DICOM", "b"):
        scan = write_scan(tmp_path / name, _gray())
        write_segmentation(tmp_path / f"{name}-seg.dcm", {(scan.SOPInstanceUID, 1, "Lesion"): BOX})
    assert sorted(entry.id for entry in read_dicom(tmp_path).entries) == ["a.DICOM/0001", "a.dcm/0001", "b"]


def test_file_in_a_folder_named_like_a_clip_has_an_id_of_its_own(tmp_path):
    write_clips(tmp_path, clips=1, frames=1)
    clip = write_scan(tmp_path / "clip.dcm", _gray(frames=2))
    single = write_scan(tmp_path / "clip" / "0001.dcm", _gray())
    parts = {(clip.SOPInstanceUID, frame, "Lesion"): BOX for frame in (1, 2)}
    write_segmentation(tmp_path / "seg.dcm", parts | {(single.SOPInstanceUID, 1, "Lesion"): BOX})
    ids = [entry.id for entry in read_dicom(tmp_path).entries]
    assert sorted(ids) == ["clip.dcm/0001", "clip/0001.dcm/0001", "clip/0002", "clip0"]


def test_same_names_in_folders_of_patients_find_their_own_masks(tmp_path):
    for patient in ("p1", "p2"):
        write_scan(tmp_path / patient / "IM1.dcm", _gray(), PatientID=patient)
        (tmp_path / patient / "masks").mkdir()
        Image.fromarray(BOX).save(tmp_path / patient / "masks" / "IM1.png")
    entries = read_dicom(tmp_path).entries
    assert [entry.masks for entry in entries] == [(tmp_path / p / "masks" / "IM1.png",) for p in ("p1", "p2")]


def test_patients_without_an_identifier_are_examinations(tmp_path):
    for name in ("a", "b"):
        scan = write_scan(tmp_path / f"{name}.dcm", _gray(), PatientID="", IssuerOfPatientID="HOSPITAL")
        write_segmentation(tmp_path / f"{name}-seg.dcm", {(scan.SOPInstanceUID, 1, "Lesion"): BOX})
    assert len({entry.group for entry in read_dicom(tmp_path).entries}) == 2


def test_segment_may_name_several_frames_but_must_name_one_of_a_clip(tmp_path):
    clip = write_scan(tmp_path / "clip.dcm", _gray(frames=5))
    write_segmentation(tmp_path / "seg.dcm", {(clip.SOPInstanceUID, (2, 4), "Lesion"): BOX})
    listing = read_dicom(tmp_path)
    assert [(entry.id, entry.mask_frames) for entry in listing.entries] == [("clip/0002", (0,)), ("clip/0004", (0,))]
    write_segmentation(tmp_path / "seg.dcm", {(clip.SOPInstanceUID, None, "Lesion"): BOX})
    (defect,) = read_dicom(tmp_path).defects
    assert "does not say which of 5 frames its masks belong to" in str(defect)


def test_segmentation_is_used_as_a_whole_or_not_at_all(tmp_path):
    """Otherwise a frame would keep one class, and the other would be taught as background."""
    write_clips(tmp_path, clips=1, frames=1)
    scan = write_scan(tmp_path / "a.dcm", _gray())
    parts = {(scan.SOPInstanceUID, 1, "Lesion"): BOX, ("1.2.3", 1, "Cyst"): BOX}
    write_segmentation(tmp_path / "seg.dcm", parts)
    listing = read_dicom(tmp_path)
    assert [entry.id for entry in listing.entries] == ["clip0"]
    assert len(listing.defects) == 1


@pytest.mark.parametrize(
    ("bits", "fields", "wanted"),
    [
        (12, {"RescaleSlope": -1, "RescaleIntercept": 4095}, lambda x: 4095 - x),
        (12, {"ModalityLUTSequence": _table(range(4095, -1, -1), bits=12)}, lambda x: 4095 - x),
        (1, {}, lambda x: 255 * x),
        (4, {"PhotometricInterpretation": "MONOCHROME1"}, lambda x: 255 - 17 * x),
    ],
)
def test_gray_values_without_a_window(tmp_path, bits, fields, wanted):
    pixels = _gray(most=2**bits, dtype=np.uint16)
    write_scan(tmp_path / "a.dcm", pixels, bits=bits, **fields)
    np.testing.assert_array_equal(np.asarray(decoded(tmp_path / "a.dcm")), wanted(pixels.astype(int)))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("clip0_mask.png", "does not say which of 3 frames it belongs to; call it clip0_0001_mask.png"),
        ("clip0_0004_mask.png", "names frame 4, but clip0 has frames from 1 to 3"),
        ("clip0_0000_mask.png", "names frame 0, but clip0 has frames from 1 to 3"),
        ("other_mask.png", "belongs to no DICOM image"),
        ("clip0_0001_mask.png", "its frame has a DICOM segmentation too"),
    ],
)
def test_mask_whose_name_fits_no_frame_is_a_defect(tmp_path, name, problem):
    write_clips(tmp_path, clips=1)
    Image.fromarray(BOX).save(tmp_path / name)
    (defect,) = read_dicom(tmp_path).defects
    assert problem in str(defect)


def test_several_segments_are_classes(tmp_path):
    for index in range(4):
        scan = write_scan(tmp_path / f"{index}.dcm", _gray(index), PatientID=str(index))
        uid, cyst = scan.SOPInstanceUID, np.roll(BOX, 15, axis=1)
        write_segmentation(tmp_path / f"{index}-seg.dcm", {(uid, 1, "Tumour"): BOX, (uid, 1, "Cyst"): cyst})
    with pytest.raises(DataError, match=r"write classes: \[background, Cyst, Tumour\]"):
        load_dataset(_config(tmp_path), tmp_path / "home")
    config = _config(tmp_path, source={"map": {"Tumour": "lesion"}}, classes=["background", "lesion", "Cyst"])
    (image, *_) = native_images(config, {"dicom/0"})
    wanted = np.where(np.roll(BOX, 15, axis=1), 2, BOX)
    np.testing.assert_array_equal(image.mask, wanted)
    assert inspect(tmp_path, tmp_path / "home").names == ("Cyst", "Tumour")


def test_fractional_segments_are_inside_from_half_on(tmp_path):
    scan = write_scan(tmp_path / "a.dcm", _gray())
    shares = np.linspace(0, 200, BOX.size).astype(np.uint8).reshape(1, *SHAPE)
    fields = {"SegmentationType": "FRACTIONAL", "MaximumFractionalValue": 200, "BitsAllocated": 8, "BitsStored": 8}
    fields |= {"HighBit": 7, "PixelData": shares.tobytes()}
    write_segmentation(tmp_path / "a-seg.dcm", {(scan.SOPInstanceUID, 1, "Lesion"): BOX}, **fields)
    (image,) = native_images(_config(tmp_path), {"dicom/a"})
    np.testing.assert_array_equal(image.mask, shares[0] > 100)


def _region(**changes):
    region = Dataset()
    usual = {"RegionSpatialFormat": 1, "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
    usual |= {"RegionLocationMinX0": 0, "RegionLocationMinY0": 0, "RegionLocationMaxX1": 9, "RegionLocationMaxY1": 9}
    usual |= {"PhysicalDeltaX": 0.01, "PhysicalDeltaY": 0.01}
    for name, value in (usual | changes).items():
        setattr(region, name, value)
    return region


@pytest.mark.parametrize(
    ("fields", "spacing"),
    [
        ({"PixelSpacing": [0.2, 0.2]}, 0.2),
        ({"PixelSpacing": [0.1, 0.4]}, 0.2),
        ({"ImagerPixelSpacing": [0.07, 0.07]}, None),  # at the detector, not in the patient
        ({"ImagerPixelSpacing": [0.07, 0.07], "EstimatedRadiographicMagnificationFactor": 1.4}, 0.05),
        ({"PixelSpacing": [0.2]}, None),
        ({"SequenceOfUltrasoundRegions": [_region()]}, 0.1),
        ({"SequenceOfUltrasoundRegions": [_region(PhysicalUnitsXDirection=4)]}, None),  # a spectrum, over seconds
        (
            {
                "SequenceOfUltrasoundRegions": [
                    _region(PhysicalDeltaX=1, PhysicalDeltaY=1),
                    _region(RegionLocationMaxX1=40, RegionLocationMaxY1=30, PhysicalDeltaX=0.02, PhysicalDeltaY=0.02),
                ]
            },
            0.2,
        ),
        ({"PixelSpacing": [0, 0]}, None),
        ({}, None),
    ],
)
def test_spacing_of_a_file_scales_the_tolerance_in_millimeters(tmp_path, fields, spacing):
    scan = write_scan(tmp_path / "a.dcm", _gray(), **fields)
    write_segmentation(tmp_path / "a-seg.dcm", {(scan.SOPInstanceUID, 1, "Lesion"): BOX})
    assert header(tmp_path / "a.dcm").spacing_mm == (None if spacing is None else pytest.approx(spacing))
    (image,) = native_images(_config(tmp_path, tolerance_mm=1.0), {"dicom/a"})
    assert image.tolerance_px == pytest.approx(0.01 * np.hypot(*SHAPE) if spacing is None else 1 / spacing)
    (stated,) = native_images(_config(tmp_path, source={"spacing_mm": 0.5}), {"dicom/a"})
    assert stated.tolerance_px == pytest.approx(2)


@pytest.mark.parametrize(
    ("said", "remark"), [("YES", "text burned into them"), (None, "do not say whether"), ("NO", None)]
)
def test_burned_in_text_is_warned_of(tmp_path, said, remark):
    fields = {} if said is None else {"BurnedInAnnotation": said}
    scan = write_scan(tmp_path / "a.dcm", _gray(), **fields)
    write_segmentation(tmp_path / "a-seg.dcm", {(scan.SOPInstanceUID, 1, "Lesion"): BOX})
    lines = [str(one) for one in load_dataset(_config(tmp_path), tmp_path / "home").remarks]
    assert [line for line in lines if "BurnedInAnnotation" in line and (remark or "BurnedIn") in line] == (
        [] if remark is None else [next(line for line in lines if remark in line)]
    )


def test_texts_of_a_file_reach_neither_errors_nor_logs(tmp_path, caplog, capfd):
    """pydicom quotes values that break the standard in warnings and errors."""
    caplog.set_level(logging.DEBUG)
    right, wrong = "1234567890.12345", "SECRET JANE DOE "
    fields = {"WindowWidth": 5, "WindowCenter": right, "PatientWeight": right, "PatientSize": right}
    scan = write_scan(tmp_path / "a.dcm", _gray(), **fields)
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content.replace(right.encode(), wrong.encode()))
    write_segmentation(tmp_path / "a-seg.dcm", {(scan.SOPInstanceUID, 1, "Lesion"): BOX})
    with pytest.raises(DataError) as error:
        load_dataset(_config(tmp_path), tmp_path / "home")
    shown = capfd.readouterr()
    for text in (str(error.value), caplog.text, shown.out, shown.err):
        assert "SECRET" not in text
        assert "JANE" not in text
    assert "a.dcm: cannot be read as DICOM: the description of its pixels is damaged (ValueError)" in str(error.value)


def test_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    write_clips(tmp_path, clips=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"pip install 'kdsearch\[dicom\]'"):
        read_dicom(tmp_path)
