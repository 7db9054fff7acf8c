"""Decodes DICOM images and the frames of clips, and says what they show; never reads a text about the patient."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from kdsearch.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

ENDINGS = (".dcm", ".dicom")
MAGIC, MAGIC_AT = b"DICM", 128
INSTALL = "pip install 'kdsearch[dicom]'"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
"""Classes of DICOM objects that are masks."""
MOST_FRAMES = 100_000
IN_2D, CENTIMETERS = 1, 3
"""What the codes of an ultrasound region mean: an image in two dimensions, with distances in cm."""

Kind = Literal["image", "mask", "other"]
Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known of a DICOM file without its pixels."""

    kind: Kind
    uid: str
    """Identifies the object; segmentations refer to it."""
    frames: int
    height: int
    width: int
    patient: str = field(repr=False)
    study: str = field(repr=False)
    """Both only distinguish patients and examinations; they are never stored or shown."""
    spacing_mm: float | None
    """Millimeters per pixel, the mean of both directions; None if unknown."""
    burned_in: bool | None
    """Whether text is burned into the pixels; None if the file does not say."""


def is_dicom(path: Path) -> bool:
    """Returns whether the file has the marks of a DICOM file, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC
    except OSError:
        return False


def require_pydicom() -> None:
    """Raises DataError if the package that reads DICOM is missing."""
    if importlib.util.find_spec("pydicom") is None:
        raise DataError(f"DICOM files need the package pydicom; install it with: {INSTALL}")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps pydicom's remarks about a file off the screen and the log, because they quote it."""
    from pydicom import config

    log, level, checks = config.logger, config.logger.level, config.settings.reading_validation_mode
    log.setLevel(logging.CRITICAL + 1)
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        config.settings.reading_validation_mode = checks


def header(path: Path) -> Header:
    """Reads what a file says about itself; raises DataError if it cannot be read."""
    return _header(path, *version_of(path))


def version_of(path: Path) -> tuple[int, int]:
    """Returns a file's size and when it was changed; raises DataError if it does not exist."""
    try:
        facts = path.stat()
    except OSError:
        raise DataError("no such file") from None
    return facts.st_size, facts.st_mtime_ns


@functools.lru_cache(maxsize=20_000)
def _header(path: Path, _size: int, _changed: int) -> Header:
    found = parsed(path, pixels=False)
    with guarded("its header"):
        kind = _kind(found)
        frames = int(found.get("NumberOfFrames") or 1)
        height, width = int(found.get("Rows") or 0), int(found.get("Columns") or 0)
        said = str(found.get("BurnedInAnnotation") or "").strip().upper()
        facts = Header(
            kind=kind,
            uid=str(found.get("SOPInstanceUID") or ""),
            frames=frames,
            height=height,
            width=width,
            patient=str(found.get("PatientID") or "").strip(),
            study=str(found.get("StudyInstanceUID") or "").strip(),
            spacing_mm=_spacing_if_stated(found) if kind == "image" else None,
            burned_in={"YES": True, "NO": False}.get(said),
        )
    if facts.kind != "other" and (not 1 <= frames <= MOST_FRAMES or height < 1 or width < 1):
        raise DataError(f"has {frames} frames of {width}×{height} pixels")
    return facts


def _kind(found: Dataset) -> Kind:
    if found.get("SOPClassUID") in (SEGMENTATION, LABEL_MAP):
        return "mask"
    return "image" if "Rows" in found and "PhotometricInterpretation" in found else "other"


def parsed(path: Path, *, pixels: bool) -> Dataset:
    """Parses a file; raises DataError if it cannot be parsed."""
    require_pydicom()
    import pydicom

    with guarded("it"), silent():
        return pydicom.dcmread(path, stop_before_pixels=not pixels)


@contextlib.contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turns any error of the parser into a DataError, without its text, which may quote what the file says."""
    try:
        with silent():
            yield
    except DataError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # noqa: BLE001 - a hostile file can raise anything in the parser
        raise DataError(f"cannot be read as DICOM: {what} is damaged ({type(error).__name__})") from None


def first_number(value: object) -> float | None:
    """The first of one or several numbers."""
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float):
        return float(value)
    several = list(value)  # type: ignore[call-overload]  # pydicom's MultiValue
    return float(several[0]) if several else None


def of_frame(found: Dataset, number: int, name: str) -> Dataset:
    """Returns the group of values that describes a frame: its own, that of all frames, or the file itself."""
    for groups in (
        (found.get("PerFrameFunctionalGroupsSequence") or [])[number : number + 1],
        (found.get("SharedFunctionalGroupsSequence") or [])[:1],
    ):
        for group in groups:
            if group.get(name):
                one: Dataset = group[name][0]
                return one
    return found


def _spacing_if_stated(found: Dataset) -> float | None:
    """The mean size of a pixel; None if the file does not state it in a way that can be read."""
    with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
        return _spacing_mm(found)
    return None


def _spacing_mm(found: Dataset) -> float | None:
    """The mean size of a pixel in the patient: as stated, of the largest ultrasound region, or behind an X-ray.

    Source: DICOM PS3.3, 10.7 (pixel spacing), C.8.5.5 (calibration of ultrasound regions) and C.8.11.3 (detectors).
    """
    for spacing in (of_frame(found, 0, "PixelMeasuresSequence").get("PixelSpacing"), _of_region(found)):
        if (mean := _mean(spacing)) is not None:
            return mean
    enlarged = found.get("EstimatedRadiographicMagnificationFactor")
    mean = _mean(found.get("ImagerPixelSpacing"))
    return None if mean is None or not enlarged else mean / float(enlarged)


def _mean(spacing: Any) -> float | None:
    if not spacing or len(spacing) != 2:
        return None
    down, across = (abs(float(one)) for one in spacing)
    return math.sqrt(down * across) if 0 < down < 100 and 0 < across < 100 else None


def _of_region(found: Dataset) -> tuple[float, float] | None:
    """Millimeters per pixel of the largest two-dimensional ultrasound region."""
    regions = [
        one
        for one in found.get("SequenceOfUltrasoundRegions") or []
        if one.get("RegionSpatialFormat") == IN_2D
        and one.get("PhysicalUnitsXDirection") == one.get("PhysicalUnitsYDirection") == CENTIMETERS
    ]
    if not regions:
        return None
    largest = max(
        regions,
        key=lambda one: (
            (one.RegionLocationMaxX1 - one.RegionLocationMinX0) * (one.RegionLocationMaxY1 - one.RegionLocationMinY0)
        ),
    )
    return 10 * float(largest.PhysicalDeltaY), 10 * float(largest.PhysicalDeltaX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One frame of a DICOM segmentation."""

    image: str
    """The identifier of the image that it belongs to."""
    image_frame: int | None
    """The frame of that image, counted from 0; None means all frames."""
    frame: int
    """The segmentation's own frame, counted from 0."""
    name: str
    """The label of the segment, which is the class."""


def segments_of(path: Path) -> tuple[Segment, ...]:
    """Lists the frames of a segmentation; raises DataError if it does not say which images they belong to."""
    return _segments(path, *version_of(path))


@functools.lru_cache(maxsize=2_000)
def _segments(path: Path, _size: int, _changed: int) -> tuple[Segment, ...]:
    found = parsed(path, pixels=False)
    with guarded("the description of its segments"):
        if found.get("SOPClassUID") == LABEL_MAP or found.get("SegmentationType") == "LABELMAP":
            raise DataError("is a label map; save it as a binary segmentation, or save masks as PNG")
        names = {int(one.SegmentNumber): str(one.SegmentLabel).strip() for one in found.SegmentSequence}
        shared = (found.get("SharedFunctionalGroupsSequence") or [None])[0]
        parts = list[Segment]()
        for place, group in enumerate(found.PerFrameFunctionalGroupsSequence):
            of = _sequence("SegmentIdentificationSequence", group, shared)
            source = _sequence("DerivationImageSequence", group, shared)
            if of is None or source is None or not source.get("SourceImageSequence"):
                raise DataError("does not say which images and segments its frames belong to")
            name = names[int(of.ReferencedSegmentNumber)]
            parts += (
                Segment(image=image, image_frame=number, frame=place, name=name)
                for one in source.SourceImageSequence
                for image, number in _frames_named(one)
            )
    return tuple(parts)


def _frames_named(reference: Dataset) -> list[tuple[str, int | None]]:
    """The image of a reference, with each frame that it names."""
    uid, numbers = str(reference.ReferencedSOPInstanceUID), reference.get("ReferencedFrameNumber")
    if numbers is None:
        return [(uid, None)]
    several = [numbers] if isinstance(numbers, str | int) else list(numbers)
    return [(uid, int(number) - 1) for number in several]


def _sequence(name: str, *groups: Any) -> Any:
    """The first item of a sequence in the first of several groups that has it."""
    return next((group[name][0] for group in groups if group is not None and group.get(name)), None)
