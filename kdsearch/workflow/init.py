"""Looks at a folder of images and writes a study file for them, sized to this machine."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from kdsearch.config.data import BACKGROUND, DataConfig
from kdsearch.config.load import load_study
from kdsearch.config.sources import FolderSource, PublishedSource
from kdsearch.data.audit import ImageLook, look
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import ACROSS, Dataset, group_of
from kdsearch.data.gathering import COLORED
from kdsearch.data.layout import Entry
from kdsearch.data.masks import IF_NUMBERS, THRESHOLD, SourceMasks, class_numbers_in
from kdsearch.data.pixels import decoded
from kdsearch.data.source import READERS, list_source
from kdsearch.errors import DataError, StudyFileError

Source = FolderSource | PublishedSource

SIZES = (64, 96, 128, 192, 256)
"""Image sizes that are proposed; all can be halved five times."""
LEAST_PIXELS = 40
"""Area at the study's size that nineteen of twenty objects should have."""
SAMPLED = 40
"""Masks that are looked at more closely."""
OBJECT = "object"
MOST_CLASSES = 64
"""Masks with larger numbers are blurred rather than numbered."""
VOID = 255
"""Marks pixels without a class in many data sets."""
BLURRED = 128
"""The threshold that is proposed for masks with more than two values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder contains."""

    source: Source
    classes: dict[str, tuple[int, ...]] | None
    """The numbers of background and object if masks hold class numbers."""
    dataset: Dataset
    looks: tuple[ImageLook, ...]
    entries: tuple[Entry, ...]

    @property
    def colored(self) -> float:
        """Fraction of the images that are colored."""
        return float(np.mean([one.colored > COLORED for one in self.looks]))

    @property
    def groups(self) -> str:
        """How many groups there are, and how they were found."""
        infos = self.dataset.infos
        count = len({group_of(info) for info in infos})
        if any(entry.group for entry in self.entries):
            return f"{count}, named by {'the table' if _table(self.source) else 'folders'}"
        ids = {info.id for info in infos}
        near = sum((info.group or "").removeprefix(ACROSS) in ids for info in infos) - count
        return f"not named; {f'{near} near-duplicates are kept together' if near > 0 else 'no near-duplicates found'}"

    def rows(self) -> list[tuple[str, str]]:
        """A table of what was found: names and values."""
        labels = Counter(info.label for info in self.dataset.infos if info.label)
        areas = np.array([one.area for one in self.looks if one.area]) * 100
        low, middle, high = np.quantile(areas, [0.05, 0.5, 0.95])
        parts = Counter(entry.part for entry in self.entries if entry.part)
        width, height = (_range([getattr(one, side) for one in self.looks]) for side in ("width", "height"))
        defects = len(self.dataset.skipped)
        rows = {
            "reader": self.source.reader,
            "images": f"{len(self.looks)}, of which {sum(not one.area for one in self.looks)} are negative",
            "pixels": f"{width} × {height}",
            "colors": f"{self.colored:.0%} of the images are colored; converted to gray" if self.colored else "gray",
            "masks": self._masks,
            "objects": f"{middle:.1f} % of the image (90 % of them: {low:.1f} to {high:.1f} %)",
            "labels": ", ".join(f"{name} {count}" for name, count in labels.most_common()) or "none",
            "groups": self.groups,
            "split": ", ".join(f"{part} {count}" for part, count in parts.items()) or "made by kdsearch",
            "left out": f"{defects} files with defects" if defects else "nothing",
        }
        return list(rows.items())

    @property
    def _masks(self) -> str:
        """How the masks are read."""
        if self.classes is not None:
            numbers = ", ".join(str(number) for number in self.classes[OBJECT])
            return f"class numbers; the object is {numbers} (change classes in the study file to segment one of them)"
        threshold = self.source.threshold
        return "two values" if threshold is None else f"more than two values; {threshold} or more is the object"


def inspect(folder: Path, home: Path, *, table: str | None = None) -> Found:
    """Finds the reader that fits the folder, and reads its images; raises DataError if none does.

    ``table`` is a CSV file in the folder. Masks that are blurred get a threshold.
    """
    source, classes = _source(folder, table), None
    problem, entries = _problem(source, home), list_source(source).entries
    some = (path for entry in entries[:: max(1, len(entries) // SAMPLED)] for path in entry.masks)
    numbers = [number for number in class_numbers_in(some) if number != VOID] if IF_NUMBERS in problem else []
    if len(numbers) > 1 and numbers[-1] < MOST_CLASSES:
        classes = {BACKGROUND: tuple(numbers[:1]), OBJECT: tuple(numbers[1:])}
    elif THRESHOLD in problem:
        source = source.model_copy(update={"threshold": BLURRED})
    config = _config(source, classes)
    dataset = load_dataset(config, home)
    looks = tuple(look(config, dataset.infos))
    if not any(one.area for one in looks):
        raise DataError(f"{folder}: none of the {len(looks)} masks shows an object; are these files masks?")
    return Found(source=source, classes=classes, dataset=dataset, looks=looks, entries=entries)


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


def _config(source: Source, classes: dict[str, tuple[int, ...]] | None = None) -> DataConfig:
    """The smallest size, without images that have defects."""
    others: Literal["error", "background"] = "error" if classes is None else "background"
    return DataConfig(sources=(source,), size=SIZES[0], on_invalid="skip", classes=classes, other_values=others)


def _problem(source: Source, home: Path) -> str:
    """What is wrong with the masks, if anything; raises DataError if it is not about their values."""
    try:
        return "\n".join(load_dataset(_config(source), home).skipped)
    except DataError:
        defects = _defects(source)
        if not any(THRESHOLD in defect for defect in defects):
            raise
        return "\n".join(defects)


def _defects(source: Source) -> list[str]:
    """The problems of the source's masks, if none can be read."""
    paths = [path for entry in list_source(source).entries for path in entry.masks]
    masks, found = SourceMasks(paths), list[str]()
    for path in paths[:SAMPLED]:
        try:
            masks.read(path, shape=np.asarray(decoded(path)).shape[:2])
        except DataError as error:
            found.append(str(error))
    return found


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

    def _outlined(self) -> str:
        """The setting that names what is segmented."""
        if self.found.classes is None:
            return f"  class_name: {_quoted(self.class_name)}                # what the masks outline\n"
        numbers = {BACKGROUND: self.found.classes[BACKGROUND], self.class_name: self.found.classes[OBJECT]}
        listed = ", ".join(f"{_quoted(name)}: {_quoted(list(some))}" for name, some in numbers.items())
        return f"  classes: {{{listed}}}   # the numbers in the masks\n  other_values: background\n"

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
{outlined}  sources:
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
