"""``student.yaml``: all that is needed to run a picked student, and how good it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError

from kdsearch.config.networks import FamilyName
from kdsearch.config.ranges import READING, Section
from kdsearch.config.renamed import figure_up_to_date
from kdsearch.config.yaml_file import YamlFile, dump_yaml
from kdsearch.errors import KdsearchError, ModelError, StudyFileError
from kdsearch.files.digests import digest_file
from kdsearch.files.schema import Content, Schema
from kdsearch.trials.recipe import SCHEMA as RECIPE
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.scores import ScoredOn

DESCRIPTION, WEIGHTS, ONNX, INT8 = "student.yaml", "model.safetensors", "model.onnx", "model.int8.onnx"
MOST_BYTES = 1_000_000
"""Of a description; a longer one is none."""


NO_NAME = "foreground"
"""What the class is called if the study names none."""


class Input(Section):
    """What the network takes, and how an image becomes that."""

    size: Annotated[int, Field(ge=16, le=4096)]
    """Height and width in pixels."""
    grey: Literal["Pillow's L"] = "Pillow's L"
    """Colours to grey as ITU-R 601-2, transparency as black."""
    resize: Literal["bilinear, antialiased"] = "bilinear, antialiased"
    scale: Literal["grey / 255, minus mean, by std"] = "grey / 255, minus mean, by std"
    mean: Annotated[float, Field(gt=-10, lt=10)]
    std: Annotated[float, Field(gt=0, lt=10)]
    whites: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """The least of these that holds its brightest pixel becomes 255 in an image of more than 8 bits; where the study
    had no such images, each image's own depth does."""


class Subgroup(Section):
    """Dice on some of the images that the student is scored on."""

    name: str
    """Such as ``label malignant`` or ``source busi``."""
    dice: float
    dice_std: float
    images: int


class NativeScore(Section):
    """Dice on those images at the size of their files."""

    dice: float
    dice_std: float
    images: int
    """Those with a lesion."""
    nsd: float | None = None
    """Mean normalised surface Dice."""
    hd95: float | None = None
    """Mean 95th percentile of the outlines' distance, as a fraction of the diagonal."""
    missed: int | None = None
    """Images with a lesion in which nothing was marked. All three None in folders written before they were measured."""


class Timing(Section):
    """A latency of one image on the machine that picked the student."""

    runtime: str
    threads: int
    median_ms: float
    p95_ms: float
    runs: int
    steady: bool


class OnnxCheck(Section):
    """How the ONNX file compares with torch on those images."""

    opset: int
    largest_difference: float
    """Of logits, in any pixel of any image."""
    dice: float
    preprocessing: bool
    """Whether grey, resize and scale are in the graph."""


class Int8Check(Section):
    """How the eight-bit file compares."""

    dice: float
    drop: float
    """Dice of the float model minus this one's."""
    bound: float
    within_bound: bool
    calibration_images: int
    """Of the training split."""


class Description(Section):
    """A picked student."""

    study: str
    trial: Annotated[int, Field(ge=0)]
    input: Input
    classes: tuple[str, ...] = ("lesion",)
    lesion_where: Literal["logit > 0"] = "logit > 0"
    recipe: Recipe
    scored_on: ScoredOn = "validation"
    """``test`` for a student that was trained on all but the locked images."""
    scores: dict[str, float]
    """On the images that ``scored_on`` names."""
    lesion_images: int
    """Of those: how many Dice is a mean of."""
    empty_images: int
    """Of those: how many hold no lesion."""
    chosen: str
    """Why it was picked, and what it could not be told from."""
    counted_by: tuple[str, ...]
    subgroups: tuple[Subgroup, ...]
    native: NativeScore | None = None
    """None in folders written before it was measured."""
    data: dict[str, str | int]
    test_openings: int = 0
    """How often the locked test images had been opened by ``kdsearch test``."""
    tested: bool = False
    """Whether that tested this student's recipe."""
    onnx: OnnxCheck
    int8: Int8Check
    latency: tuple[Timing, ...]
    made_with: dict[str, str]
    """Versions, processor, date."""
    files: dict[str, str]
    """SHA-256 of each file beside this one that a machine reads."""
    seal: str = ""
    """SHA-256 of all the above, so that a file that was edited is not taken for what was picked."""


def dump_description(description: Description) -> str:
    """As YAML, sealed."""
    values = description.model_dump(mode="json", exclude={"seal"})
    content = SCHEMA.stamped(values | {"recipe": RECIPE.stamped(values["recipe"])})
    return dump_yaml(content | {"seal": seal_of(content)})


def _without_format(content: Content) -> Content:
    """Schema 0 called its number a format."""
    return {key: value for key, value in content.items() if key != "format"}


def _specificity(content: Content) -> Content:
    """Schema 1 called it another name."""
    scores = content.get("scores")
    if not isinstance(scores, dict):
        return content
    return content | {"scores": {figure_up_to_date(key): value for key, value in scores.items()}}


SCHEMA = Schema(what=DESCRIPTION, upgrades=(_without_format, _specificity))


def _up_to_date(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    found = SCHEMA.upgraded(content)
    return found | {"recipe": RECIPE.upgraded(found["recipe"])} if isinstance(found.get("recipe"), dict) else found


def seal_of(content: Mapping[str, object]) -> str:
    """Of a description without its seal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_description(folder: Path) -> Description:
    """The folder's student; raises ModelError where the folder does not hold one."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelError(f"{folder}: holds no {DESCRIPTION}; name a folder that kdsearch pick wrote")
    if path.stat().st_size > MOST_BYTES:
        raise ModelError(
            f"{path}: {path.stat().st_size:,} bytes; a student's description has no more than {MOST_BYTES:,}"
        )
    try:
        content = YamlFile(path).content
        found = Description.model_validate_json(json.dumps(_up_to_date(content)), context=READING)
    except StudyFileError as error:
        raise ModelError(f"not a student's description: {error}") from error
    except KdsearchError as error:
        raise ModelError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        families = get_args(FamilyName)  # of which pydantic names the one that it tried; it does not stand in the file
        where = ".".join(str(part) for part in first["loc"] if part not in families)
        raise ModelError(f"{path}: {where}: {first['msg']}; write the folder again with kdsearch pick") from None
    if found.seal != seal_of({key: value for key, value in content.items() if key != "seal"}):
        raise ModelError(f"{path}: was changed after kdsearch pick wrote it; pick the student again")
    return found


def require_unchanged(path: Path, description: Description) -> None:
    """Raises ModelError where the file is not there, or not the one that was described."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; kdsearch pick writes it")
    if description.files.get(path.name) != digest_file(path):
        raise ModelError(f"{path}: not the file that {DESCRIPTION} describes; pick the student again")
