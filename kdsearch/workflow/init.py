"""Looks at a folder of images: what they are, and how their masks are read."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdsearch.config.data import BACKGROUND, DataConfig
from kdsearch.config.sources import (
    AnnotatedSource,
    DicomSource,
    FileSource,
    FolderSource,
    NnunetSource,
    PublishedSource,
    threshold_of,
)
from kdsearch.data.audit import ImageLook, look
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import ACROSS, Dataset, group_of
from kdsearch.data.dicom_folder import has_dicom
from kdsearch.data.gathering import COLORED
from kdsearch.data.layout import Entry
from kdsearch.data.masks import IF_NUMBERS, THRESHOLD, SourceMasks, class_numbers_in
from kdsearch.data.nnunet import FILE as NNUNET_FILE
from kdsearch.data.nnunet import StatedLabels, labels_named, read_labels
from kdsearch.data.pixels import decoded
from kdsearch.data.source import ANNOTATED, READERS, list_source
from kdsearch.errors import DataError, StudyFileError

Source = FileSource

SIZES = (64, 96, 128, 192, 256)
"""Image sizes that are proposed; all can be halved five times."""
SAMPLED = 40
"""Masks that are looked at more closely."""
MOSTLY = 0.5
"""Fraction of colored images above which a study keeps colors."""
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
    numbers: tuple[int, ...]
    """The class numbers in the masks, the background's first; empty if masks have two values."""
    void: int | None
    """The number of pixels without a class in masks of class numbers; None if there is none."""
    names: tuple[str, ...]
    """Names of the classes other than the background, if the folder states them or there are several."""
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
        if isinstance(self.source, DicomSource):
            return f"{count}, by the patient's identifier in the files"
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
        color = "kept" if self.keeps_colors else "converted to gray; data.channels: 3 would keep them"
        rows = {
            "reader": self.source.reader,
            "images": f"{len(self.looks)}, of which {sum(not one.area for one in self.looks)} are negative",
            "pixels": f"{width} × {height}",
            "colors": f"{self.colored:.0%} of the images are colored; {color}" if self.colored else "gray",
            "masks": self._masks,
            **({"classes": self._shares} if len(self.numbers) > 2 else {}),
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
        if self.numbers:
            void = "" if self.void is None else f"; {self.void} does not count"
            return f"class numbers {', '.join(map(str, self.numbers))}; {self.numbers[0]} is the background{void}"
        threshold = threshold_of(self.source)
        return "two values" if threshold is None else f"more than two values; {threshold} or more is the object"

    @property
    def keeps_colors(self) -> bool:
        """Whether the study keeps colors, because most images have some."""
        return self.colored > MOSTLY

    @property
    def _shares(self) -> str:
        """How many images have each class, and how large it is in them."""
        parts = []
        for place, number in enumerate(self.numbers[1:]):
            areas = [one.classes[place] for one in self.looks if one.classes[place]]
            parts.append(f"{number} in {len(areas)} images, {100 * float(np.mean(areas or [0])):.1f} % of their pixels")
        return "; ".join(parts)

    def named(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Returns the numbers of each class: of several, or of one that joins all numbers but the background's.

        Raises StudyFileError if there are neither one name nor as many as classes.
        """
        objects = self.numbers[1:]
        if len(names) not in (1, len(objects)):
            raise StudyFileError(
                f"the masks have the classes {', '.join(map(str, objects))}, but {len(names)} names are given: "
                f"{', '.join(names)}; give one name for each class, or one for all of them"
            )
        each = [(number,) for number in objects] if len(names) == len(objects) else [objects]
        return {BACKGROUND: self.numbers[:1], **dict(zip(names, each, strict=True))}


def inspect(folder: Path, home: Path, *, table: str | None = None) -> Found:
    """Finds the reader that fits the folder, and reads its images; raises DataError if none does.

    ``table`` is a CSV file in the folder. Masks that are blurred get a threshold.
    """
    source = _source(folder, table)
    if isinstance(source, NnunetSource):
        return _stated(source, read_labels(folder), home)
    if isinstance(source, AnnotatedSource):
        shown = sorted({shape.name for entry in list_source(source).entries for shape in entry.shapes})
        return _stated(source, labels_named(shown), home)
    segments = _segments(source)
    if isinstance(source, DicomSource) and len(segments) > 1:
        return _stated(source, labels_named(segments), home)
    problem, entries = _problem(source, home), list_source(source).entries
    every = class_numbers_in(path for entry in entries for path in entry.masks) if IF_NUMBERS in problem else []
    numbers, void = tuple(number for number in every if number != VOID), VOID if VOID in every else None
    if len(numbers) < 2 or numbers[-1] >= MOST_CLASSES:
        numbers = ()
        if THRESHOLD in problem:
            source = source.model_copy(update={"threshold": BLURRED})
    names = tuple(default_name(number) for number in numbers[1:]) if len(numbers) > 2 else segments
    classes = {BACKGROUND: numbers[:1]} | {default_name(one): (one,) for one in numbers[1:]} if numbers else None
    config = _config(source, classes, void=void if numbers else None)
    dataset = load_dataset(config, home)
    looks = tuple(look(config, dataset.infos))
    if not any(one.area for one in looks):
        raise DataError(f"{folder}: none of the {len(looks)} masks shows an object; are these files masks?")
    return Found(source=source, numbers=numbers, void=void, names=names, dataset=dataset, looks=looks, entries=entries)


def _stated(source: NnunetSource | AnnotatedSource | DicomSource, labels: StatedLabels, home: Path) -> Found:
    """Reads a folder whose classes are stated in a file."""
    if any(len(some) > 1 for some in labels.classes.values()):
        raise DataError(f"{source.folder}: classes of several numbers; write the study file by hand: {labels.lines()}")
    dataset = load_dataset(config := _config(source, labels.classes, void=labels.ignore), home)
    return Found(
        source=source,
        numbers=tuple(some[0] for some in labels.classes.values()),
        void=labels.ignore,
        names=tuple(name for name in labels.classes if name != BACKGROUND),
        dataset=dataset,
        looks=tuple(look(config, dataset.infos)),
        entries=list_source(source).entries,
    )


def _source(folder: Path, table: str | None) -> Source:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the folder of your images and masks")
    if table is None and (known := _recognized(folder)) is not None:
        return known
    source = FolderSource(reader="folder", folder=_literal(folder), csv=table)
    list_source(source)
    return source


def _segments(source: Source) -> tuple[str, ...]:
    """The classes that DICOM segmentations show."""
    if not isinstance(source, DicomSource):
        return ()
    return tuple(sorted({name for entry in list_source(source).entries for name in entry.names}))


def _recognized(folder: Path) -> Source | None:
    """The source of a folder whose format shows; raises DataError if DICOM files in it cannot be used."""
    place = _literal(folder)
    if (folder / NNUNET_FILE).is_file() and (folder / "imagesTr").is_dir():
        return NnunetSource(reader="nnunet", folder=place)
    for name, (annotated, _) in ANNOTATED.items():
        with contextlib.suppress(DataError):
            if any(entry.shapes for entry in annotated(folder).entries):
                return AnnotatedSource(reader=name, folder=place)  # type: ignore[arg-type]  # likewise
    if has_dicom(folder):
        source = DicomSource(reader="dicom", folder=place)
        list_source(source)
        return source
    for name, (read, _) in READERS.items():
        with contextlib.suppress(DataError):
            if read(folder).entries:
                return PublishedSource(reader=name, folder=place)  # type: ignore[arg-type]  # a reader's name
    return None


def _literal(folder: Path) -> str:
    """The folder as a study file names it, in which ``$`` starts the name of an environment variable."""
    return str(folder).replace("$", "$$")


def _config(
    source: Source, classes: dict[str, tuple[int, ...]] | None = None, *, void: int | None = None
) -> DataConfig:
    """The smallest size, without images that have defects."""
    return DataConfig(sources=(source,), size=SIZES[0], on_invalid="skip", classes=classes, ignore=void)


def default_name(number: int) -> str:
    """The name of a class that only has a number."""
    return f"class {number}"


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
