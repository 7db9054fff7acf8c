"""The ``data`` section: where images come from, at what size, and how they are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from kdsearch.config.ranges import Section, training_rule
from kdsearch.config.sources import (
    CYST,
    LESION,
    PhantomSource,
    Source,
    UnlabelledSource,
    has_file_per_class,
    source_name,
    threshold_of,
)
from kdsearch.config.task import Task

CLASS_NAMES = r"^\w[\w .-]*$"
TAGS = r"^[a-z0-9][a-z0-9-]*$"
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


OtherValues = Literal["error", "background", "ignore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassNumbers:
    """What the values of masks mean."""

    values: Mapping[int, int]
    """The class of each value; a color's value is 65536 · red + 256 · green + blue. Class 0 is the background."""
    names: Mapping[str, int]
    """The classes by name."""
    others: OtherValues = "error"
    """What all other values are."""
    ignored: int | None = None
    """The value of pixels that do not count."""
    colors: bool = False
    """Whether the values are colors."""

    @property
    def by_value(self) -> bool:
        """Whether the values of a mask distinguish classes; if not, a mask has two values."""
        return bool(self.values)


Level = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Level, Level, Level]


def _colors(given: object) -> object:
    """Turns colors, single or in lists, into tuples of colors."""
    if not isinstance(given, dict):
        return given
    return {name: _listed(some) if isinstance(some, list | tuple) else some for name, some in given.items()}


def _listed(some: Sequence[object]) -> tuple[object, ...]:
    several = any(isinstance(one, list | tuple) for one in some)
    colors = some if several else (some,)
    return tuple(tuple(one) if isinstance(one, list | tuple) else one for one in colors)


Palette = Annotated[
    dict[ClassName, Annotated[tuple[Color, ...], Field(min_length=1)]],
    BeforeValidator(
        _colors, json_schema_input_type=dict[ClassName, Color | Annotated[list[Color], Field(min_length=1)]]
    ),
]
MOST_CLASSES = 100
Side = Annotated[int, Field(ge=16, le=1024)]


def _shown(given: object) -> str:
    return "nothing" if given is None else str(given)


def _sides(given: object) -> object:
    """Checks one side, or height and width."""
    sides = list(given) if isinstance(given, list | tuple) and len(given) == 2 else [given]
    if not all(isinstance(side, int) and not isinstance(side, bool) and 16 <= side <= 1024 for side in sides):
        raise ValueError(
            f"must be a number of pixels from 16 to 1024, or height and width, such as [96, 128]; got {_shown(given)}"
        )
    return tuple(sides) if len(sides) == 2 else given


Size = Annotated[int | tuple[int, int], BeforeValidator(_sides, json_schema_input_type=Side | tuple[Side, Side])]
"""Height and width in pixels, or one number for both."""


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
    size: Size = 128
    """Height and width in pixels to which every image and mask is resized: one number for both, or two, such as
    ``[96, 128]``."""
    fit: Literal["stretch", "pad"] = "stretch"
    """How images of another aspect ratio are resized. ``stretch`` fills the whole size; ``pad`` keeps the aspect ratio
    and adds black, which counts neither in losses nor in scores."""
    channels: Literal[1, 3] = 1
    """1 converts all images to gray; 3 uses their colors, red, green and blue."""
    split: SplitConfig = SplitConfig()
    """How images are split into training, validation and test."""
    on_invalid: Literal["error", "skip"] = "error"
    """What to do with unreadable files and masks that do not fit: refuse to start, or leave those images out."""
    tolerance_mm: Annotated[float, Field(gt=0)] = 1.0
    """Tolerance of the normalized surface Dice. If the size of an image's pixels is unknown, 1 % of its diagonal is
    used instead."""
    class_name: ClassName | None = None
    """What the masks outline, such as ``lesion`` or ``road``. Default: the model card calls it ``foreground``."""
    classes: Classes | None = None
    """For masks that hold class numbers: the names in the order of the numbers, ``background`` first, or each name's
    number or numbers, such as ``{background: 0, road: [3, 4]}``. In palette images, the numbers are those of the
    palette. Default: masks have two values."""
    palette: Palette | None = None
    """For masks in colors: each class's color or colors as red, green and blue, such as ``{lesion: [255, 0, 0]}``.
    Black is background unless a class has it."""
    other_values: OtherValues = "error"
    """What values of a mask are that no class names: a defect of the mask, background, or pixels that do not count."""
    ignore: MaskValue | None = None
    """Value of mask pixels that count neither in losses nor in scores, such as 255 in Cityscapes."""
    train_on_negatives: bool = False
    """Also train on negative images. They never count in Dice."""

    unlabelled: tuple[UnlabelledSource, ...] = ()
    """Sources whose masks are not read; the teacher's predictions on them train distilled students. Images that share
    a group with validation or test images are left out."""
    unlabelled_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Fraction of unlabelled images in each batch. They are added to the labeled ones: at 0.5 a step processes twice
    ``batch_size`` images and takes twice as long."""

    @training_rule
    def _classes_are_told_apart(self) -> DataConfig:
        values = [value for values in (self.classes or {}).values() for value in values]
        colors = [color for colors in (self.palette or {}).values() for color in colors]
        if self.classes is None and self.palette is None and self.other_values != "error":
            raise ValueError("other_values has no effect without classes or palette; add one or remove it")
        if (self.classes is not None or self.palette is not None) and not self.foreground:
            raise ValueError(f"classes: at least one class besides {BACKGROUND} must be segmented; add its name")
        if len(self.foreground) >= MOST_CLASSES:
            raise ValueError(f"classes: at most {MOST_CLASSES} classes are possible, got {len(self.foreground) + 1}")
        if len(set(values)) < len(values):
            raise ValueError("classes: a number belongs to one class; remove it from the others")
        if len(set(colors)) < len(colors):
            raise ValueError("palette: a color belongs to one class; remove it from the others")
        if self.classes is not None and self.palette is not None:
            raise ValueError("classes is for numbers and palette for colors; keep the one that your masks have")
        if self.ignore is not None and (self.ignore in values or self.palette is not None):
            why = (
                "palette needs other_values: ignore instead" if self.palette is not None else "a class has this number"
            )
            raise ValueError(f"ignore: {self.ignore}: {why}; remove ignore, or correct the classes")
        if self.foreground and self.class_name is not None:
            raise ValueError("class_name has no effect with classes, which name what is segmented; remove class_name")
        return self

    @training_rule
    def _thresholds_are_for_two_values(self) -> DataConfig:
        numbered = [source for source in self.sources if not has_file_per_class(source)]
        if (self.classes or self.palette) and any(threshold_of(source) is not None for source in numbered):
            raise ValueError("threshold is for masks of two values, not for class numbers; remove it or classes")
        return self

    @training_rule
    def _simulated_classes_agree(self) -> DataConfig:
        simulated = [source for source in self.sources if isinstance(source, PhantomSource)]
        several = len(self.foreground) > 1
        wrong = [one for one in simulated if one.class_names != (self.foreground if several else ())]
        from_files = several and self.classes is None and self.palette is None and len(simulated) < len(self.sources)
        if wrong or from_files:
            raise ValueError(
                "classes: all sources must have the same classes; simulated images have background and "
                f"{LESION} with classes: 2, and also {CYST} with classes: 3"
            )
        return self

    @training_rule
    def _files_per_class_need_names(self) -> DataConfig:
        if not self.foreground and any(has_file_per_class(source) for source in self.sources):
            raise ValueError(
                f"masks: {{class}} needs the names of the classes; write classes: [{BACKGROUND}, ...] with the names "
                "that the paths have"
            )
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of all images."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of the classes other than the background, in order; empty if the study names none."""
        named = self.classes if self.palette is None else self.palette
        simulated = next((one.class_names for one in self.sources if isinstance(one, PhantomSource)), ())
        return tuple(name for name in named or simulated if name != BACKGROUND)

    @property
    def task(self) -> Task:
        """The shapes of a student's input and output."""
        (height, width), several = self.shape, len(self.foreground) > 1
        outputs = len(self.foreground) + 1 if several else 1
        return Task(height=height, width=width, channels=self.channels, outputs=outputs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of what the masks outline; empty if the study does not name it."""
        return self.foreground or (() if self.class_name is None else (self.class_name,))

    @property
    def class_numbers(self) -> ClassNumbers | None:
        """What the values of masks mean; None if masks have two values, and nothing else is said about them."""
        if self.classes is None and self.palette is None and self.ignore is None:
            return None
        numbers = {name: number for number, name in enumerate((BACKGROUND, *self.foreground))}
        values = {value: numbers[name] for name, some in (self.classes or {}).items() for value in some}
        if self.palette is not None:
            values = {0: 0} | {
                red << 16 | green << 8 | blue: numbers[name]
                for name, some in self.palette.items()
                for red, green, blue in some
            }
        return ClassNumbers(
            values=values,
            names=numbers,
            others=self.other_values,
            ignored=self.ignore,
            colors=self.palette is not None,
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
