"""The sources of images in the ``data`` section: simulated images, published data sets and folders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kdsearch.config.ranges import Section, training_rule

NAMES = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
PATTERNS = r"^[^{}]*\{name\}[^{}]*$"
Pattern = Annotated[str, Field(pattern=PATTERNS, max_length=500)]
MASK_PATTERNS = r"^[^{}]*(\{class\}[^{}]*\{name\}|\{name\}([^{}]*\{class\})?)[^{}]*$"
MaskPattern = Annotated[str, Field(pattern=MASK_PATTERNS, max_length=500)]
SourceName = Annotated[str, Field(pattern=NAMES, max_length=60)]


Spacing = Annotated[float, Field(gt=0, lt=100)]
Bits = Literal[8, 10, 12, 14, 16]
Threshold = Annotated[int, Field(ge=1, le=255)]


LESION, CYST = "lesion", "cyst"
"""The classes of simulated images."""


class PhantomSource(Section):
    """Simulated breast ultrasound; generated, no download."""

    reader: Literal["phantom"]
    """The simulator."""
    name: SourceName = "phantom"
    """Name of the source in scores."""
    images: Annotated[int, Field(ge=10, le=100_000)] = 400
    """Number of images to simulate."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The same seed gives the same images."""
    classes: Literal[2, 3] = 2
    """2: background and lesion; 3: cysts are a class of their own."""
    colored: bool = False
    """Show lesions and lookalikes of the same brightness that differ only in color."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes other than the background, if there are several."""
        return (LESION, CYST) if self.classes == 3 else ()


class PublishedSource(Section):
    """A published data set in its original layout."""

    reader: Literal["busi", "udiat", "busbra", "breast"]
    """Which data set's layout to read."""
    name: SourceName | None = None
    """Name of the source in scores. Default: the reader's name."""
    folder: str
    """The unpacked folder, relative to the folder in which you run kdsearch. ``$NAME`` is replaced by an environment
    variable."""
    bits: Bits | None = None
    """Bit depth of images with more than 8 bits. Default: the smallest that holds every pixel of the set."""
    spacing_mm: Spacing | None = None
    """Millimeters per pixel of the files, if it is the same for all of them."""
    threshold: Threshold | None = None
    """Least gray value, of 255, that belongs to the lesion; for masks that JPEG or smoothing blurred. Default: masks
    must have two values."""


class FolderSource(Section):
    """A folder of images and masks in any layout."""

    reader: Literal["folder"]
    """A folder with images and masks."""
    name: SourceName = "folder"
    """Name of the source in scores."""
    folder: str
    """The folder. Masks are recognized by a folder such as ``masks/`` or a name such as ``x_mask.png``, and belong to
    the image of the same name or number. ``$NAME`` is replaced by an environment variable."""
    images: Pattern | None = None
    """Which files are images, if kdsearch does not recognize them: a path below the folder, such as
    ``scans/*/{name}.png``. ``{name}`` is the part that an image and its mask have in common; ``*`` matches anything but
    a slash."""
    masks: MaskPattern | None = None
    """Which files are masks, such as ``truth/{name}_*.png``. A file that fits both patterns is a mask. If each
    class has masks of its own, ``{class}`` is its name, as in ``{class}/{name}.png``."""
    bits: Bits | None = None
    """Bit depth of images with more than 8 bits. Default: the smallest that holds every pixel of the set."""
    spacing_mm: Spacing | None = None
    """Millimeters per pixel of the files, if it is the same for all of them."""
    threshold: Threshold | None = None
    """Least gray value, of 255, that belongs to the lesion; for masks that JPEG or smoothing blurred. Default: masks
    must have two values."""
    csv: str | None = None
    """A table in that folder with a column ``image`` and, if you like, ``mask``, ``group`` (such as the patient),
    ``label`` and ``split`` (``train``, ``validation`` or ``test``). With a column ``mask``, the table alone says which
    files belong together; an empty cell is a negative image."""
    ignore_columns: tuple[str, ...] = ()
    """Columns of the table to ignore, although their names suggest patients or other groups."""

    @training_rule
    def _patterns_together(self) -> FolderSource:
        if (self.images is None) != (self.masks is None):
            missing = "images" if self.images is None else "masks"
            raise ValueError(f"images and masks are patterns that need each other; add {missing}")
        return self


class NnunetSource(Section):
    """A data set in nnU-Net's raw layout, with images such as PNG."""

    reader: Literal["nnunet"]
    """A folder with ``dataset.json``, ``imagesTr/`` and ``labelsTr/``."""
    name: SourceName = "nnunet"
    """Name of the source in scores."""
    folder: str
    """The folder, such as ``nnUNet_raw/Dataset001_Name``. ``$NAME`` is replaced by an environment variable."""
    fold: Annotated[int, Field(ge=0, lt=100)] = 0
    """Which fold of ``splits_final.json`` to use, if there is such a file; see ``data.split.given``."""
    bits: Bits | None = None
    """Bit depth of images with more than 8 bits. Default: the smallest that holds every pixel of the set."""
    spacing_mm: Spacing | None = None
    """Millimeters per pixel of the files, if it is the same for all of them."""


class AnnotatedSource(Section):
    """A folder of images with annotation files: outlines or run lengths of objects."""

    reader: Literal["coco", "yolo", "labelme", "cvat"]
    """The format of the annotations."""
    name: SourceName | None = None
    """Name of the source in scores. Default: the reader's name."""
    folder: str
    """The folder with the images. ``$NAME`` is replaced by an environment variable."""
    annotations: str | None = None
    """The annotation file in that folder. Default: kdsearch looks for it; for ``coco``, all of them are read."""
    map: dict[str, str] | None = None
    """Classes that have another name in this source, such as ``{tumour: lesion}``: its tumours are lesions."""
    bits: Bits | None = None
    """Bit depth of images with more than 8 bits. Default: the smallest that holds every pixel of the set."""
    spacing_mm: Spacing | None = None
    """Millimeters per pixel of the files, if it is the same for all of them."""


class DicomSource(Section):
    """A folder of DICOM images and clips; needs the extra ``kdsearch[dicom]``."""

    reader: Literal["dicom"]
    """A folder with DICOM files, of any names and in any subfolders."""
    name: SourceName = "dicom"
    """Name of the source in scores."""
    folder: str
    """The folder. Masks are DICOM segmentations, or images such as ``x_mask.png`` for ``x.dcm`` and
    ``x_0007_mask.png`` for the seventh frame of a clip. Frames without a mask are left out. ``$NAME`` is replaced by an
    environment variable."""
    every: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Use every n-th of a clip's frames that have a mask; under ``data.unlabelled``, every n-th of all frames."""
    group: Literal["patient", "study", "file"] = "patient"
    """What a split keeps together: the images of a patient (``PatientID``), of an examination (``StudyInstanceUID``),
    or only the frames of a clip."""
    map: dict[str, str] | None = None
    """Labels of segments that have another name in this study, such as ``{tumour: lesion}``."""
    bits: Bits | None = None
    """Bit depth of images with more than 8 bits and without a window. Default: the smallest that holds every pixel of
    the set."""
    spacing_mm: Spacing | None = None
    """Millimeters per pixel. Default: what the files state."""
    threshold: Threshold | None = None
    """Least gray value, of 255, that belongs to the lesion; for masks that JPEG or smoothing blurred. Default: masks
    must have two values."""


class ImagesSource(Section):
    """A folder of images without masks; for ``data.unlabelled`` only."""

    reader: Literal["images"]
    """A folder of images."""
    name: SourceName = "images"
    """Name of the source."""
    folder: str
    """The folder that contains the images. ``$NAME`` is replaced by an environment variable."""
    bits: Bits | None = None
    """Bit depth of images with more than 8 bits. Default: the smallest that holds every pixel of the set."""
    csv: str | None = None
    """A table in that folder with a column ``image`` and a column ``group`` (such as the patient)."""
    ignore_columns: tuple[str, ...] = ()
    """Columns of the table to ignore, although their names suggest patients or other groups."""


FileSource = PublishedSource | FolderSource | NnunetSource | AnnotatedSource | DicomSource
"""A source of images with masks that are files."""
Source = Annotated[PhantomSource | FileSource, Field(discriminator="reader")]
UnlabelledSource = Annotated[PhantomSource | FileSource | ImagesSource, Field(discriminator="reader")]


def source_name(source: PhantomSource | FileSource | ImagesSource) -> str:
    """The source's name in image ids and scores."""
    return source.name or source.reader


def has_file_per_class(source: PhantomSource | FileSource | ImagesSource) -> bool:
    """Whether each class has masks of its own."""
    return isinstance(source, FolderSource) and "{class}" in (source.masks or "")


def threshold_of(source: PhantomSource | FileSource | ImagesSource) -> int | None:
    """The least gray value of a lesion in the source's masks; None if they have two values."""
    return source.threshold if isinstance(source, PublishedSource | FolderSource | DicomSource) else None
