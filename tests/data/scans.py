"""Writes DICOM images, clips and segmentations for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ULTRASOUND, CLIP = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PATIENT = "DOE^JANE"


def write_scan(path: Path, pixels: np.ndarray, *, bits: int = 8, compressed: str | None = None, **fields) -> Dataset:
    """Writes H×W gray or H×W×3 RGB pixels, or those of a clip, N×H×W or N×H×W×3; ``fields`` replace or add others."""
    colored = pixels.shape[-1] == 3
    frames = len(pixels) if pixels.ndim == 3 + colored else 1
    scan = _described(CLIP if frames > 1 else ULTRASOUND)
    scan.PhotometricInterpretation = "RGB" if colored else "MONOCHROME2"
    scan.SamplesPerPixel, scan.Rows, scan.Columns = (3, 1)[not colored], *pixels.shape[-2 - colored :][:2]
    if colored:
        scan.PlanarConfiguration = 0
    if frames > 1:
        scan.NumberOfFrames = frames
    scan.BitsAllocated = 8 * pixels.dtype.itemsize
    scan.BitsStored, scan.HighBit = bits, bits - 1
    scan.PixelRepresentation = int(pixels.dtype.kind == "i")
    scan.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in fields.items():
        if value is None:
            del scan[name]
        else:
            setattr(scan, name, value)
    saved(scan, path)
    if compressed is not None:
        compress(path, compressed)
    return scan


def _reference(uid, frames):
    """Names an image and, unless it is None, a frame or several."""
    found = _of(ReferencedSOPInstanceUID=uid)
    if frames is not None:
        found.ReferencedFrameNumber = list(frames) if isinstance(frames, tuple) else frames
    return found


def compress(path: Path, syntax: str) -> None:
    """Replaces a file by one with compressed pixels."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def write_segmentation(path: Path, masks: dict[tuple[str, object, str], np.ndarray], **fields) -> Dataset:
    """Writes binary masks H×W by the image's identifier, its frame counted from 1 (or several), and the label."""
    found = _described(SEGMENTATION)
    labels = list(dict.fromkeys(label for _, _, label in masks))
    stack = np.stack(list(masks.values())).astype(bool)
    found.Modality, found.SegmentationType, found.PhotometricInterpretation = "SEG", "BINARY", "MONOCHROME2"
    found.SamplesPerPixel, found.BitsAllocated, found.BitsStored, found.HighBit = 1, 1, 1, 0
    found.PixelRepresentation, found.NumberOfFrames = 0, len(stack)
    found.Rows, found.Columns = stack.shape[1:]
    found.SegmentSequence = [_of(SegmentNumber=place, SegmentLabel=label) for place, label in enumerate(labels, 1)]
    found.PerFrameFunctionalGroupsSequence = [
        _of(
            DerivationImageSequence=[_of(SourceImageSequence=[_reference(uid, frame)])],
            SegmentIdentificationSequence=[_of(ReferencedSegmentNumber=labels.index(label) + 1)],
        )
        for uid, frame, label in masks
    ]
    found.PixelData = np.packbits(stack.ravel(), bitorder="little").tobytes() + bytes(1)
    for name, value in fields.items():
        setattr(found, name, value)
    return saved(found, path)


def saved(scan: Dataset, path: Path) -> Dataset:
    path.parent.mkdir(parents=True, exist_ok=True)
    scan.save_as(path, enforce_file_format=True)
    return scan


def _described(kind: str) -> Dataset:
    scan = Dataset()
    scan.file_meta = FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    scan.file_meta.MediaStorageSOPClassUID = scan.SOPClassUID = kind
    scan.file_meta.MediaStorageSOPInstanceUID = scan.SOPInstanceUID = generate_uid()
    scan.PatientID, scan.PatientName, scan.Modality = "4711", PATIENT, "US"
    scan.StudyInstanceUID, scan.SeriesInstanceUID = generate_uid(), generate_uid()
    return scan


def _of(**fields) -> Dataset:
    found = Dataset()
    for name, value in fields.items():
        setattr(found, name, value)
    return found
