"""The study file that ``kdsearch init`` writes for a folder of images."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdsearch.config.load import load_study
from kdsearch.errors import StudyFileError
from kdsearch.workflow.init import SIZES, Found

LEAST_PIXELS = 40
"""Area at the study's size that nineteen of twenty objects should have."""

FAR_FROM_SQUARE = 1.3
"""Ratio of an image's sides from which its shape is kept."""
STEP = 32
"""Height and width can be halved five times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings of a study that depend on the images and on the machine."""

    name: str
    found: Found
    size: int | tuple[int, int]
    """Of square images, or height and width."""
    class_names: tuple[str, ...]
    """One name, or one for each class."""
    epochs: int = 2
    trials: int = 6

    @property
    def depth(self) -> int:
        """The deepest encoder that leaves a feature map of 4×4."""
        return min(5, int(math.log2(min(self.shape))) - 2)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the study's images."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def _outlined(self) -> str:
        """The setting that names what is segmented."""
        if not self.found.numbers:
            return f"  class_name: {_quoted(self.class_names[0])}                # what the masks outline\n"
        each = self.found.named(self.class_names).items()
        listed = ", ".join(f"{_quoted(name)}: {_quoted(some[0] if len(some) == 1 else some)}" for name, some in each)
        void = self.found.void
        line = "" if void is None else f"  ignore: {void}                       # pixels that do not count\n"
        return f"  classes: {{{listed}}}   # the numbers in the masks\n{line}"

    def text(self, *, comment: str = "") -> str:
        """The study file."""
        source = self.found.source
        settings = source.model_dump(exclude_defaults=True) | {"reader": source.reader}
        lines = [f"{key}: {_quoted(value)}" for key, value in settings.items()]
        described = f"# {comment}\n" if comment else ""
        return TEMPLATE.format(
            comment=described,
            name=_quoted(self.name),
            outlined=self._outlined(),
            source="\n      ".join(lines),
            skip=(SKIP if self.found.dataset.skipped else "") + (COLORS if self.found.keeps_colors else ""),
            size=_quoted(self.size),
            depth=min(4, self.depth),
            shallowest=min(3, self.depth - 1),
            deepest=self.depth,
            epochs=self.epochs,
            trials=self.trials,
        )


SKIP = "  on_invalid: skip                  # leaves out files with defects\n"
COLORS = "  channels: 3                       # keeps colors; 1 converts images to gray\n"
TEMPLATE = """\
# yaml-language-server: $schema=study.schema.json
{comment}# A value in braces is a range that is searched; everything else stays fixed.
name: {name}
data:
{outlined}  sources:
    - {source}
{skip}  size: {size}                          # images are resized to this, height before width
teacher:
  encoder_depth: {depth}                  # a U-Net on a pretrained encoder, trained once, then cached
  training: {{epochs: {epochs}}}
student:                            # small U-Nets
  width: {{int: [4, 24], log: true}}  # channels of the first stage
  growth: {{float: [1, 2]}}           # channel factor from stage to stage (classic U-Net: 2)
  depth: {{int: [{shallowest}, {deepest}]}}              # number of downsamplings
  convs_per_stage: {{choice: [1, 2]}}
  conv: {{choice: [standard, separable]}}   # separable: fewer parameters
distillation:
  path: {{choice: [none, logits, attention]}}   # what the student imitates; none: no teacher
training:
  epochs: {epochs}
  learning_rate: {{float: [1e-3, 1e-2], log: true}}
search:
  trials: {trials}
  objectives: [dice, params, macs]  # Dice up; parameters and multiply-adds down
  limits: {{params: 1M}}              # larger students are never trained
  pruning: {{pruner: reach}}          # stops students that cannot reach the front
"""


def _quoted(value: object) -> str:
    """Writes a value for YAML; text is quoted unless it is a plain word."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_quoted, value))}]"
    if not isinstance(value, str):
        return str(value)
    plain = re.fullmatch(r"[A-Za-z_/.][\w/.-]*", value) and value.lower() not in ("true", "false", "null")
    return value if plain else json.dumps(value, ensure_ascii=False)


def propose_size(found: Found) -> int | tuple[int, int]:
    """The smallest size at which nearly all objects keep enough pixels; at most the size of the images.

    If the usual image is far from square, height and width with the same number of pixels.
    """
    areas = np.array([one.area for one in found.looks if one.area])
    longest = float(np.median([max(one.height, one.width) for one in found.looks]))
    least = math.sqrt(LEAST_PIXELS / float(np.quantile(areas, 0.05)))
    size = next((size for size in SIZES if size >= min(least, longest)), SIZES[-1])
    wider = float(np.median([one.width / one.height for one in found.looks]))
    if max(wider, 1 / wider) < FAR_FROM_SQUARE:
        return size
    height, width = (max(STEP, STEP * round(size * math.sqrt(ratio) / STEP)) for ratio in (1 / wider, wider))
    return height, width


def write_study(plan: Plan, file: Path, *, seconds: float) -> None:
    """Writes the study file; raises StudyFileError if the file exists, or if the study would be refused."""
    minutes = max(1, round(seconds / 60))
    comment = f"{len(plan.found.looks)} images in {plan.found.source.folder}; about {minutes} minutes on this machine."
    text = plan.text(comment=comment)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise StudyFileError(f"{file}: exists already; name another file with --out") from None
    load_study(file)


def name_of(folder: Path) -> str:
    """A study's name made from the folder's."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    return plain[:60] or "mystudy"
