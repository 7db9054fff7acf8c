"""``student.yaml``: everything needed to run a picked student, and its scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError

from kdsearch.config.data import DataConfig
from kdsearch.config.networks import FamilyName
from kdsearch.config.ranges import READING, Section
from kdsearch.config.renamed import figure_up_to_date
from kdsearch.config.task import Task
from kdsearch.config.yaml_file import YamlFile, dump_yaml
from kdsearch.data.frame import Frame
from kdsearch.errors import KdsearchError, ModelError, StudyFileError
from kdsearch.export.timing import DESCRIPTION, MOST_BYTES
from kdsearch.files.digests import digest_file
from kdsearch.files.schema import Content, Schema, unchanged
from kdsearch.models.contract import INPUT_MEAN, INPUT_STD
from kdsearch.trials.recipe import SCHEMA as RECIPE
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.scores import ScoredOn

NO_NAME = "foreground"
"""Name of the class if the study does not name it."""


Side = Annotated[int, Field(ge=16, le=4096)]


class Input(Section):
    """The network's input, and how to make it from an image."""

    size: Side | tuple[Side, Side]
    """Height and width in pixels, or one number for both."""
    channels: Literal[1, 3] = 1
    """1 for gray, 3 for red, green and blue."""
    fit: Literal["stretch", "pad"] = "stretch"
    """Whether images fill the size, or keep their aspect ratio and are padded with black on both sides."""
    grey: Literal["Pillow's L"] | None = "Pillow's L"
    """Colors become gray as in ITU-R 601-2; transparency becomes black. None for color images."""
    resize: Literal["bilinear, antialiased"] = "bilinear, antialiased"
    scale: Literal["grey / 255, minus mean, by std", "value / 255, minus mean, by std"] = (
        "grey / 255, minus mean, by std"
    )
    mean: Annotated[float, Field(gt=-10, lt=10)]
    std: Annotated[float, Field(gt=0, lt=10)]
    whites: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """For images of more than 8 bits: the smallest of these values that is at least the brightest pixel becomes 255.
    If empty, the largest value of the image's bit depth does."""

    @property
    def frame(self) -> Frame:
        """The frame that images are brought to."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return Frame(height=height, width=width, pads=self.fit == "pad")

    @classmethod
    def of(cls, config: DataConfig, *, whites: tuple[float, ...]) -> Input:
        """The input of a study's students."""
        color = config.channels == 3
        return cls(
            size=config.size,
            channels=config.channels,
            fit=config.fit,
            grey=None if color else "Pillow's L",
            scale="value / 255, minus mean, by std" if color else "grey / 255, minus mean, by std",
            mean=INPUT_MEAN,
            std=INPUT_STD,
            whites=whites,
        )


class Subgroup(Section):
    """Dice on a subset of the images that the student was scored on."""

    name: str
    """For example ``label malignant`` or ``source busi``."""
    dice: float
    dice_std: float
    images: int


class NativeScore(Section):
    """Scores on the same images at original resolution; the last three are None in folders of early releases."""

    dice: float
    dice_std: float
    images: int
    """Number of images with a lesion."""
    nsd: float | None = None
    """Mean normalized surface Dice."""
    hd95: float | None = None
    """Mean 95th percentile of the distance between outlines, as a fraction of the diagonal."""
    missed: int | None = None
    """Number of images with a lesion for which the prediction was empty."""


class Timing(Section):
    """The latency of one image on the machine that picked the student."""

    runtime: str
    threads: int
    median_ms: float
    p95_ms: float
    runs: int
    steady: bool


class OnnxCheck(Section):
    """How the ONNX file compares with torch on the same images."""

    opset: int
    largest_difference: float
    """The largest difference between logits, over all pixels of all images."""
    dice: float
    preprocessing: bool
    """Whether the graph includes conversion to gray, resizing and scaling."""


class Int8Check(Section):
    """How the 8-bit file compares with torch on the same images."""

    dice: float
    drop: float
    """Dice of the float model minus Dice of this one."""
    bound: float
    within_bound: bool
    calibration_images: int
    """Number of training images used for calibration."""


class Description(Section):
    """The content of ``student.yaml``."""

    study: str
    trial: Annotated[int, Field(ge=0)]
    input: Input
    classes: tuple[str, ...] = ("lesion",)
    """Names of the classes other than the background."""
    lesion_where: Literal["logit > 0", "largest logit"] = "logit > 0"
    """How logits become classes; the largest of several counts, the first is that of the background."""
    recipe: Recipe
    scored_on: ScoredOn = "validation"
    """``test`` for a student that was trained on all images except the locked ones."""
    scores: dict[str, float]
    """Scores on the images that ``scored_on`` names."""
    lesion_images: int
    """Number of these images with a lesion; Dice is a mean over them."""
    empty_images: int
    """Number of negative images among them."""
    chosen: str
    """Why the student was picked, and what limits the choice."""
    counted_by: tuple[str, ...]
    subgroups: tuple[Subgroup, ...]
    by_class: tuple[Subgroup, ...] = ()
    """Dice of each class if there are several."""
    native: NativeScore | None = None
    """None in folders of early releases."""
    data: dict[str, str | int]
    test_openings: int = 0
    """How often ``kdsearch test`` had used the locked test images."""
    tested: bool = False
    """Whether it tested this student's recipe."""
    onnx: OnnxCheck
    int8: Int8Check
    latency: tuple[Timing, ...]
    made_with: dict[str, str]
    """Versions, processor and date."""
    files: dict[str, str]
    """SHA-256 of each model file and of ``seen.txt``."""
    seal: str = ""
    """SHA-256 of everything above, to detect edits."""

    @property
    def task(self) -> Task:
        """The shapes of the network's input and output."""
        frame, several = self.input.frame, len(self.classes) > 1
        outputs = len(self.classes) + 1 if several else 1
        return Task(height=frame.height, width=frame.width, channels=self.input.channels, outputs=outputs)


def dump_description(description: Description) -> str:
    """Returns the description as YAML, with its seal."""
    values = description.model_dump(mode="json", exclude={"seal"})
    content = SCHEMA.stamped(values | {"recipe": RECIPE.stamped(values["recipe"])})
    return dump_yaml(content | {"seal": seal_of(content)})


def _without_format(content: Content) -> Content:
    """Schema 0 used the key ``format`` for its number."""
    return {key: value for key, value in content.items() if key != "format"}


def _specificity(content: Content) -> Content:
    """Schema 1 used an older name for the specificity."""
    scores = content.get("scores")
    if not isinstance(scores, dict):
        return content
    return content | {"scores": {figure_up_to_date(key): value for key, value in scores.items()}}


SCHEMA = Schema(what=DESCRIPTION, upgrades=(_without_format, _specificity, unchanged))


def _up_to_date(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    found = SCHEMA.upgraded(content)
    return found | {"recipe": RECIPE.upgraded(found["recipe"])} if isinstance(found.get("recipe"), dict) else found


def seal_of(content: Mapping[str, object]) -> str:
    """Returns the SHA-256 of a description's content, without the seal itself."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_description(folder: Path) -> Description:
    """Reads the folder's ``student.yaml``; raises ModelError if it is missing, invalid or was edited."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelError(f"{folder}: contains no {DESCRIPTION}; give a folder that kdsearch pick wrote")
    if path.stat().st_size > MOST_BYTES:
        raise ModelError(f"{path}: {path.stat().st_size:,} bytes; a student's description has at most {MOST_BYTES:,}")
    try:
        content = YamlFile(path).content
        found = Description.model_validate_json(json.dumps(_up_to_date(content)), context=READING)
    except StudyFileError as error:
        raise ModelError(f"not a student's description: {error}") from error
    except KdsearchError as error:
        raise ModelError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        families = get_args(FamilyName)  # pydantic adds the family it tried to the location; the file has no such key
        where = ".".join(str(part) for part in first["loc"] if part not in families and _is_key(part))
        raise ModelError(f"{path}: {where}: {first['msg']}; run kdsearch pick again") from None
    if found.seal != seal_of({key: value for key, value in content.items() if key != "seal"}):
        raise ModelError(f"{path}: was changed after kdsearch pick wrote it; run kdsearch pick again")
    return found


def _is_key(part: str | int) -> bool:
    """Whether a part of pydantic's location is a key of the file, and not a type that was tried."""
    return isinstance(part, int) or part.isidentifier()


def require_unchanged(path: Path, description: Description) -> None:
    """Raises ModelError if the file is missing or its checksum is not the one in the description."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; run kdsearch pick again")
    if description.files.get(path.name) != digest_file(path):
        raise ModelError(f"{path}: not the file that {DESCRIPTION} describes; run kdsearch pick again")
