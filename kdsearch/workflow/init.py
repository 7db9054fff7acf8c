"""Looks at a folder of images and writes a study file for them, sized to this machine."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdsearch.config.data import DataConfig, FolderSource, PublishedSource
from kdsearch.config.load import load_study
from kdsearch.data.audit import COLORED_FRACTION, ImageLook, look
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import ACROSS, Dataset, group_of
from kdsearch.data.layout import Entry
from kdsearch.data.masks import THRESHOLD
from kdsearch.data.source import READERS, list_source
from kdsearch.errors import DataError, StudyFileError

Source = FolderSource | PublishedSource

SIZES = (64, 96, 128, 192, 256)
"""Image sizes that are proposed; all can be halved five times."""
LEAST_PIXELS = 40
"""Area at the study's size that nineteen of twenty objects should have."""
BLURRED = 128
"""The threshold that is proposed for masks with more than two values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder contains."""

    source: Source
    dataset: Dataset
    looks: tuple[ImageLook, ...]
    entries: tuple[Entry, ...]

    @property
    def colored(self) -> float:
        """Fraction of the images that are colored."""
        return float(np.mean([one.colored > COLORED_FRACTION for one in self.looks]))

    @property
    def groups(self) -> str:
        """How many groups there are, and how they were found."""
        infos = self.dataset.infos
        count = len({group_of(info) for info in infos})
        if any(entry.group for entry in self.entries):
            return f"{count}, named by {'the table' if _table(self.source) else 'folders'}"
        ids = {info.id for info in infos}
        near = sum((info.group or "").removeprefix(ACROSS) in ids for info in infos) - count
        return f"not named; {max(near, 0)} near-duplicates are kept together"

    def rows(self) -> list[tuple[str, str]]:
        """A table of what was found: names and values."""
        labels = Counter(info.label for info in self.dataset.infos if info.label)
        areas = np.array([one.area for one in self.looks if one.area]) * 100
        low, middle, high = np.quantile(areas, [0.05, 0.5, 0.95])
        parts = Counter(entry.part for entry in self.entries if entry.part)
        width, height = (_range([getattr(one, side) for one in self.looks]) for side in ("width", "height"))
        threshold, defects = self.source.threshold, len(self.dataset.skipped)
        rows = {
            "reader": self.source.reader,
            "images": f"{len(self.looks)}, of which {sum(not one.area for one in self.looks)} are negative",
            "pixels": f"{width} × {height}",
            "colors": f"{self.colored:.0%} of the images are colored; converted to gray" if self.colored else "gray",
            "masks": "two values" if threshold is None else f"more than two values; {threshold} or more is the object",
            "objects": f"{middle:.1f} % of the image (90 % of them: {low:.1f} to {high:.1f} %)",
            "labels": ", ".join(f"{name} {count}" for name, count in labels.most_common()) or "none",
            "groups": self.groups,
            "split": ", ".join(f"{part} {count}" for part, count in parts.items()) or "made by kdsearch",
            "left out": f"{defects} files with defects" if defects else "nothing",
        }
        return list(rows.items())


def inspect(folder: Path, home: Path, *, table: str | None = None) -> Found:
    """Finds the reader that fits the folder, and reads its images; raises DataError if none does.

    ``table`` is a CSV file in the folder. Masks that are blurred get a threshold.
    """
    source = _source(folder, table)
    dataset = _read(source, home)
    if any(THRESHOLD in line for line in dataset.skipped):
        source = source.model_copy(update={"threshold": BLURRED})
        dataset = _read(source, home)
    config = DataConfig(sources=(source,), size=SIZES[0], on_invalid="skip")
    looks = tuple(look(config, dataset.infos))
    if not any(one.area for one in looks):
        raise DataError(f"{folder}: none of the {len(looks)} masks shows an object; are these files masks?")
    return Found(source=source, dataset=dataset, looks=looks, entries=list_source(source).entries)


def _source(folder: Path, table: str | None) -> Source:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the folder of your images and masks")
    if table is None:
        for name, (read, _) in READERS.items():
            try:
                if read(folder).entries:
                    return PublishedSource(reader=name, folder=_literal(folder))  # type: ignore[arg-type]  # a reader's name
            except DataError:
                continue
    source = FolderSource(reader="folder", folder=_literal(folder), csv=table)
    list_source(source)
    return source


def _literal(folder: Path) -> str:
    """The folder as a study file names it, in which ``$`` starts the name of an environment variable."""
    return str(folder).replace("$", "$$")


def _read(source: Source, home: Path) -> Dataset:
    """Reads the images at the smallest size, without those that have defects."""
    config = DataConfig(sources=(source,), size=SIZES[0], on_invalid="skip")
    try:
        return load_dataset(config, home)
    except DataError:
        blurred = source.model_copy(update={"threshold": BLURRED})
        if source.threshold is not None:
            raise
        dataset = load_dataset(config.model_copy(update={"sources": (blurred,)}), home)  # if all masks are blurred
        return replace(dataset, skipped=(f"{source.folder}: {THRESHOLD}", *dataset.skipped))


def _table(source: Source) -> str | None:
    return source.csv if isinstance(source, FolderSource) else None


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings of a study that depend on the images and on the machine."""

    name: str
    found: Found
    size: int
    class_name: str
    epochs: int = 2
    trials: int = 6

    @property
    def depth(self) -> int:
        """The deepest encoder that leaves a feature map of 4×4."""
        return min(5, int(math.log2(self.size)) - 2)

    def text(self, *, comment: str = "") -> str:
        """The study file."""
        source = self.found.source
        settings = source.model_dump(exclude_defaults=True) | {"reader": source.reader}
        lines = [f"{key}: {_quoted(value)}" for key, value in settings.items()]
        described = f"# {comment}\n" if comment else ""
        return TEMPLATE.format(
            comment=described,
            name=_quoted(self.name),
            class_name=_quoted(self.class_name),
            source="\n      ".join(lines),
            skip=SKIP if self.found.dataset.skipped else "",
            size=self.size,
            depth=min(4, self.depth),
            shallowest=min(3, self.depth - 1),
            deepest=self.depth,
            epochs=self.epochs,
            trials=self.trials,
        )


SKIP = "  on_invalid: skip                  # leaves out files with defects\n"
TEMPLATE = """\
# yaml-language-server: $schema=study.schema.json
{comment}# A value in braces is a range that is searched; everything else stays fixed.
name: {name}
data:
  class_name: {class_name}                # what the masks outline
  sources:
    - {source}
{skip}  size: {size}                          # images are resized to this height and width
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


def propose_size(found: Found) -> int:
    """The smallest size at which nearly all objects keep enough pixels; at most the size of the images."""
    areas = np.array([one.area for one in found.looks if one.area])
    longest = float(np.median([max(one.height, one.width) for one in found.looks]))
    least = math.sqrt(LEAST_PIXELS / float(np.quantile(areas, 0.05)))
    return next((size for size in SIZES if size >= min(least, longest)), SIZES[-1])


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
