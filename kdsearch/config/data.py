"""The ``data`` section: where images come from, at what size, and how they are split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from kdsearch.config.ranges import Section, training_rule

NAMES = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
CLASS_NAMES = r"^\w[\w .-]*$"
TAGS = r"^[a-z0-9][a-z0-9-]*$"
PATTERNS = r"^[^{}]*\{name\}[^{}]*$"
Pattern = Annotated[str, Field(pattern=PATTERNS, max_length=500)]
SourceName = Annotated[str, Field(pattern=NAMES, max_length=60)]


Spacing = Annotated[float, Field(gt=0, lt=100)]
Bits = Literal[8, 10, 12, 14, 16]
Threshold = Annotated[int, Field(ge=1, le=255)]


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
    masks: Pattern | None = None
    """Which files are masks, such as ``truth/{name}_*.png``. A file that fits both patterns is a mask."""
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


Source = Annotated[PhantomSource | PublishedSource | FolderSource, Field(discriminator="reader")]
UnlabelledSource = Annotated[
    PhantomSource | PublishedSource | FolderSource | ImagesSource, Field(discriminator="reader")
]


BACKGROUND = "background"
ClassName = Annotated[str, Field(pattern=CLASS_NAMES, max_length=60)]
MaskValue = Annotated[int, Field(ge=0, le=65_535)]


def _numbered(given: object) -> object:
    """Turns names in the order of their numbers, and single numbers, into numbers by name."""
    if isinstance(given, dict):
        return {name: tuple(some) if isinstance(some, list | tuple) else (some,) for name, some in given.items()}
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ValueError("write the names, background first, or each name's number, such as {background: 0, road: 3}")
    if len(set(given)) < len(given):
        raise ValueError("the names of classes must differ")
    return {name: (number,) for number, name in enumerate(given)}


Classes = Annotated[
    dict[ClassName, Annotated[tuple[MaskValue, ...], Field(min_length=1)]],
    BeforeValidator(
        _numbered,
        json_schema_input_type=list[ClassName]
        | dict[ClassName, MaskValue | Annotated[list[MaskValue], Field(min_length=1)]],
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassNumbers:
    """Which numbers of a mask are the object, and which are background."""

    foreground: frozenset[int]
    background: frozenset[int]
    others_are_background: bool


class SplitConfig(Section):
    """Fractions of the images for validation and for the locked test; all others are for training."""

    validation: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction of the images on which trials are compared."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction that stays locked until ``kdsearch test`` scores a chosen student."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The same seed gives the same split on every machine."""
    given: Literal["keep", "ignore"] = "keep"
    """What to do with a split that a data set brings, in folders such as ``train/`` and ``test/`` or in a column
    ``split``. ``keep``: use it; a part that it lacks is taken from its training images. ``ignore``: make a new
    split."""

    @training_rule
    def _leaves_training(self) -> SplitConfig:
        if self.validation + self.test >= 0.9:
            raise ValueError(f"validation + test must stay below 0.9, got {self.validation + self.test:g}")
        return self


class DataConfig(Section):
    """Images, and what happens to them before training."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)] = (PhantomSource(reader="phantom"),)
    """One or more sources. Scores are also reported per source."""
    size: Annotated[int, Field(ge=16, le=1024)] = 128
    """Height and width in pixels to which every image and mask is resized."""
    split: SplitConfig = SplitConfig()
    """How images are split into training, validation and test."""
    on_invalid: Literal["error", "skip"] = "error"
    """What to do with unreadable files and masks that do not fit: refuse to start, or leave those images out."""
    tolerance_mm: Annotated[float, Field(gt=0)] = 1.0
    """Tolerance of the normalized surface Dice. If a source has no ``spacing_mm``, 1 % of the image's diagonal is used
    instead."""
    class_name: ClassName | None = None
    """What the masks outline, such as ``lesion`` or ``road``. Default: the model card calls it ``foreground``."""
    classes: Classes | None = None
    """For masks that hold class numbers: the names in the order of the numbers, ``background`` first, or each name's
    number or numbers, such as ``{background: 0, road: [3, 4]}``. One class besides ``background`` is segmented. In
    palette images, the numbers are those of the palette. Default: masks have two values."""
    other_values: Literal["error", "background"] = "error"
    """What numbers are that no class names: a defect of the mask, or background."""
    train_on_negatives: bool = False
    """Also train on negative images. They never count in Dice."""

    unlabelled: tuple[UnlabelledSource, ...] = ()
    """Sources whose masks are not read; the teacher's predictions on them train distilled students. Images that share
    a group with validation or test images are left out."""
    unlabelled_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Fraction of unlabelled images in each batch. They are added to the labeled ones: at 0.5 a step processes twice
    ``batch_size`` images and takes twice as long."""

    @training_rule
    def _one_foreground(self) -> DataConfig:
        names = [name for name in self.classes or () if name != BACKGROUND]
        values = [value for values in (self.classes or {}).values() for value in values]
        if self.classes is None and self.other_values != "error":
            raise ValueError("other_values has no effect without classes; add classes or remove it")
        if self.classes is not None and len(names) != 1:
            raise ValueError(
                f"classes: kdsearch segments one class besides {BACKGROUND}, got {', '.join(names) or 'none'}; keep "
                "one, with other_values: background for the others"
            )
        if len(set(values)) < len(values):
            raise ValueError("classes: a number belongs to one class; remove it from the others")
        if names and self.class_name is not None:
            raise ValueError("class_name has no effect with classes, which name what is segmented; remove class_name")
        if names and any(threshold_of(source) is not None for source in self.sources):
            raise ValueError("threshold is for masks of two values, not for class numbers; remove it or classes")
        return self

    @property
    def foreground_name(self) -> str | None:
        """What the masks outline; None if the study does not name it."""
        return next((name for name in self.classes or () if name != BACKGROUND), self.class_name)

    @property
    def class_numbers(self) -> ClassNumbers | None:
        """Which numbers of the masks are the object; None if masks have two values."""
        if self.classes is None:
            return None
        return ClassNumbers(
            foreground=frozenset(one for name, some in self.classes.items() if name != BACKGROUND for one in some),
            background=frozenset(self.classes.get(BACKGROUND, ())),
            others_are_background=self.other_values == "background",
        )

    @training_rule
    def _names_differ(self) -> DataConfig:
        names = [source_name(source) for source in (*self.sources, *self.unlabelled)]
        if len(set(names)) < len(names):
            raise ValueError(f"sources must have different names, got {names}; give each a name")
        return self

    @training_rule
    def _nothing_idle(self) -> DataConfig:
        if not self.unlabelled and self.unlabelled_fraction != type(self).model_fields["unlabelled_fraction"].default:
            raise ValueError("unlabelled_fraction has no effect without data.unlabelled; add such sources or remove it")
        return self

    @training_rule
    def _simulated_images_differ(self) -> DataConfig:
        seeds = [source.seed for source in (*self.unlabelled, *self.sources) if isinstance(source, PhantomSource)]
        own = sum(isinstance(source, PhantomSource) for source in self.unlabelled)
        if any(seed in seeds[place + 1 :] for place, seed in enumerate(seeds[:own])):
            raise ValueError(
                "unlabelled: phantom sources with the same seed have the same images; give each its own seed"
            )
        return self


def source_name(source: PhantomSource | PublishedSource | FolderSource | ImagesSource) -> str:
    """The source's name in image ids and scores."""
    return source.name or source.reader


def threshold_of(source: PhantomSource | PublishedSource | FolderSource | ImagesSource) -> int | None:
    """The least gray value of a lesion in the source's masks; None if they have two values."""
    return source.threshold if isinstance(source, PublishedSource | FolderSource) else None
