"""The ``data`` section: where images come from, at what size, and how they are split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kdsearch.config.ranges import Section, training_rule

NAMES = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
CLASS_NAMES = r"^\w[\w .-]*$"
TAGS = r"^[a-z0-9][a-z0-9-]*$"
SourceName = Annotated[str, Field(pattern=NAMES, max_length=60)]


Spacing = Annotated[float, Field(gt=0, lt=100)]
Bits = Literal[8, 10, 12, 14, 16]


class PhantomSource(Section):
    """Simulated breast ultrasound, made on the spot; needs no download."""

    reader: Literal["phantom"]
    """The simulator."""
    name: SourceName = "phantom"
    """What the source is called in scores."""
    images: Annotated[int, Field(ge=10, le=100_000)] = 400
    """How many images to simulate."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Same seed, same images."""


class PublishedSource(Section):
    """A published data set in the layout its authors gave it."""

    reader: Literal["busi", "udiat", "busbra", "breast"]
    """Which data set's layout to read."""
    name: SourceName | None = None
    """What the source is called in scores; the reader's name unless given."""
    folder: str
    """The unpacked folder; ``$NAME`` stands for an environment variable. Relative to where the command runs."""
    bits: Bits | None = None
    """Depth of images of more than 8 bits; the least that holds every pixel of the set unless given."""
    spacing_mm: Spacing | None = None
    """Millimetres from one pixel of the files to the next, where it is the same in all of them."""


class FolderSource(Section):
    """A folder with ``images/`` and ``masks/``, paired by file name."""

    reader: Literal["folder"]
    """Plain folders."""
    name: SourceName = "folder"
    """What the source is called in scores."""
    folder: str
    """Holds ``images/`` and ``masks/``; ``$NAME`` stands for an environment variable."""
    bits: Bits | None = None
    """Depth of images of more than 8 bits; the least that holds every pixel of the set unless given."""
    spacing_mm: Spacing | None = None
    """Millimetres from one pixel of the files to the next, where it is the same in all of them."""
    csv: str | None = None
    """A table in that folder with a column ``image`` and any of ``group`` (patient) and ``label``."""
    ignore_columns: tuple[str, ...] = ()
    """Columns of the table that are left out on purpose, though they seem to name patients or other groups."""


class ImagesSource(Section):
    """A folder of images, whose masks nobody drew; for ``data.unlabelled`` alone."""

    reader: Literal["images"]
    """Plain images."""
    name: SourceName = "images"
    """What the source is called."""
    folder: str
    """Holds the images; ``$NAME`` stands for an environment variable."""
    bits: Bits | None = None
    """Depth of images of more than 8 bits; the least that holds every pixel of the set unless given."""
    csv: str | None = None
    """A table in that folder with a column ``image`` and a column ``group`` (patient)."""
    ignore_columns: tuple[str, ...] = ()
    """Columns of the table that are left out on purpose, though they seem to name patients or other groups."""


Source = Annotated[PhantomSource | PublishedSource | FolderSource, Field(discriminator="reader")]
UnlabelledSource = Annotated[
    PhantomSource | PublishedSource | FolderSource | ImagesSource, Field(discriminator="reader")
]


class SplitConfig(Section):
    """Fractions of the images for validation and for the locked test; the rest trains."""

    validation: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction of the images on which trials are compared."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction locked away until a chosen student is confirmed."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Same seed, same split, on every machine."""

    @training_rule
    def _leaves_training(self) -> SplitConfig:
        if self.validation + self.test >= 0.9:
            raise ValueError(f"validation + test must stay below 0.9, got {self.validation + self.test:g}")
        return self


class DataConfig(Section):
    """Where images come from and what happens to them before training."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)] = (PhantomSource(reader="phantom"),)
    """One or more sources; every image keeps its source, and scores are given per source too."""
    size: Annotated[int, Field(ge=16, le=1024)] = 128
    """Height and width in pixels that every image and mask is resized to."""
    split: SplitConfig = SplitConfig()
    """How images are shared out."""
    on_invalid: Literal["error", "skip"] = "error"
    """What happens if files are unreadable or masks do not fit their images. ``error``: the study does not start;
    ``skip``: those images are left out."""
    tolerance_mm: Annotated[float, Field(gt=0)] = 1.0
    """How far outlines may differ in normalised surface Dice; 1 % of the image's diagonal where ``spacing_mm`` of the
    source is not given."""
    class_name: Annotated[str, Field(pattern=CLASS_NAMES, max_length=60)] | None = None
    """What the masks outline, such as ``lesion`` or ``road``; the model card says ``foreground`` if it is not given."""
    train_on_negatives: bool = False
    """Whether negative images, those without a lesion, are trained on; they never count in Dice."""

    unlabelled: tuple[UnlabelledSource, ...] = ()
    """Sources whose masks are not read: distilled students learn there what the teacher marks. Images that belong
    together with validation or test images are left out."""
    unlabelled_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Fraction of unlabelled images in each batch. They are added to the labelled ones: at 0.5 a step sees twice
    ``batch_size`` images and takes twice as long."""

    @training_rule
    def _names_differ(self) -> DataConfig:
        names = [source_name(source) for source in (*self.sources, *self.unlabelled)]
        if len(set(names)) < len(names):
            raise ValueError(f"sources must have different names, got {names}; give each a name")
        return self

    @training_rule
    def _nothing_idle(self) -> DataConfig:
        if not self.unlabelled and self.unlabelled_fraction != type(self).model_fields["unlabelled_fraction"].default:
            raise ValueError("unlabelled_fraction has an effect with unlabelled alone; name such sources, or remove it")
        return self

    @training_rule
    def _simulated_images_differ(self) -> DataConfig:
        seeds = [source.seed for source in (*self.unlabelled, *self.sources) if isinstance(source, PhantomSource)]
        own = sum(isinstance(source, PhantomSource) for source in self.unlabelled)
        if any(seed in seeds[place + 1 :] for place, seed in enumerate(seeds[:own])):
            raise ValueError("unlabelled: phantoms of one seed are the same images; give each source its own seed")
        return self


def source_name(source: PhantomSource | PublishedSource | FolderSource | ImagesSource) -> str:
    """What the source is called in image ids and in scores."""
    return source.name or source.reader
