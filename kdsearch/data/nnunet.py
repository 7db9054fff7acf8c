"""Reads a data set in nnU-Net's raw layout: ``dataset.json``, ``imagesTr/`` and ``labelsTr/``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsearch.config.data import BACKGROUND, DataConfig
from kdsearch.config.sources import NnunetSource
from kdsearch.data.layout import Defect, Entry, Listing, Part, require_folder
from kdsearch.data.pixels import SUFFIXES
from kdsearch.data.shapes import read_json
from kdsearch.errors import DataError

NNUNET_WHERE = "nnU-Net's documentation, 'dataset format'; the folder is nnUNet_raw/DatasetXXX_NAME"
FILE = "dataset.json"
SPLITS = "splits_final.json"
IGNORE = "ignore"
"""The label whose pixels nnU-Net leaves out of its loss."""
COLORS = (("r", "g", "b"), ("red", "green", "blue"))
"""Names of the channels of color images, which nnU-Net keeps in one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedLabels:
    """What ``dataset.json`` says about images and labels."""

    classes: dict[str, tuple[int, ...]]
    """The numbers of each class, background first."""
    ignore: int | None
    channels: int
    """1 for gray, 3 for RGB."""

    def lines(self) -> str:
        """Returns what a study file says about these labels."""
        named = {name: some[0] if len(some) == 1 else list(some) for name, some in self.classes.items()}
        listed = ", ".join(f"{json.dumps(name)}: {number}" for name, number in named.items())
        return f"classes: {{{listed}}}" + ("" if self.ignore is None else f", ignore: {self.ignore}")


def read_labels(folder: Path) -> StatedLabels:
    """Reads ``dataset.json``; raises DataError if kdsearch cannot read such images or labels."""
    path = folder / FILE
    content = _json(path)
    labels, names = content.get("labels"), content.get("channel_names", content.get("modality"))
    if not isinstance(labels, Mapping) or not isinstance(names, Mapping):
        raise DataError(f"{path}: must have labels and channel_names; get the format: {NNUNET_WHERE}")
    ending = str(content.get("file_ending", ""))
    if ending.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: file_ending {ending!r}: kdsearch reads images, not volumes; save the slices as PNG, such as with "
            "nibabel (docs/how-to/nnunet-data.md)"
        )
    colors = tuple(str(name).lower() for name in names.values())
    if len(colors) > 1 and colors not in COLORS:
        raise DataError(
            f"{path}: channels {', '.join(colors)}: kdsearch reads gray images and red, green and blue ones"
        )
    numbers = {str(name): tuple(some) if isinstance(some, list) else (some,) for name, some in labels.items()}
    every = [number for some in numbers.values() for number in some]
    if not all(isinstance(number, int) for number in every) or len(set(every)) < len(every):
        raise DataError(f"{path}: labels must be different whole numbers; regions that overlap cannot be read")
    ignore = numbers.pop(IGNORE, None)
    ordered = dict(sorted(numbers.items(), key=lambda item: (item[0] != BACKGROUND, item[1])))
    return StatedLabels(
        classes=ordered, ignore=None if ignore is None else ignore[0], channels=3 if colors in COLORS else 1
    )


def labels_named(names: Sequence[str]) -> StatedLabels:
    """The labels of a data set that only names its classes."""
    classes: dict[str, tuple[int, ...]] = {name: (number,) for number, name in enumerate((BACKGROUND, *names))}
    return StatedLabels(classes=classes, ignore=None, channels=1)


def require_labels(source: NnunetSource, folder: Path, config: DataConfig) -> None:
    """Raises DataError unless the study names the classes of ``dataset.json``, and its ignored label."""
    found = read_labels(folder)
    stated = {number: name for name, some in (config.classes or {}).items() for number in some}
    named = {number: name for name, some in found.classes.items() for number in some}
    if config.other_values == "error" and (stated != named or config.ignore != found.ignore):
        raise DataError(
            f"data.classes: source {source.name}: {folder / FILE} has other classes; write, in the data section, "
            f"{found.lines()}; or leave some out, with other_values: background"
        )


def read_nnunet(folder: Path, *, fold: int = 0) -> Listing:
    """Lists ``imagesTr/`` with ``labelsTr/``, and ``imagesTs/`` with ``labelsTs/`` as test images.

    The parts of the split are those of a fold of ``splits_final.json``, in the folder itself or in that of the same
    name in ``nnUNet_preprocessed``. Raises DataError if the layout is missing.
    """
    root = require_folder(folder, (FILE, "imagesTr", "labelsTr"), where=NNUNET_WHERE)
    ending = str(_json(root / FILE).get("file_ending", ""))
    parts = _parts(root, fold=fold)
    entries, defects, folders = list[Entry](), list[Defect](), list[Path]()
    for images, labels, part in (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test")):
        if not (root / labels).is_dir() or not (root / images).is_dir():
            continue
        folders += [root / images, root / labels]
        known = set[str]()
        for image in sorted((root / images).glob(f"*_0000{ending}")):
            case = image.name.removesuffix(f"_0000{ending}")
            known.add(case)
            mask = root / labels / f"{case}{ending}"
            if not mask.is_file():
                defects.append(Defect(path=image, problem=f"has no label ({labels}/{mask.name})"))
                continue
            where: Part | None = "test" if part == "test" else parts.get(case)
            entries.append(Entry(id=case, image=image, masks=(mask,), part=where))
        strangers = sorted(
            {path.name for path in (root / labels).glob(f"*{ending}")} - {f"{one}{ending}" for one in known}
        )
        defects += [Defect(path=root / labels / name, problem="has no image") for name in strangers]
    wanted = f"imagesTr/CASE_0000{ending} with labelsTr/CASE{ending}"
    return Listing(entries=tuple(entries), defects=tuple(defects), folders=tuple(folders), wanted=wanted)


def _parts(root: Path, *, fold: int) -> dict[str, Part]:
    """Returns the part of each case in a fold; empty if there is no file with splits."""
    places = (root / SPLITS, root.parent.parent / "nnUNet_preprocessed" / root.name / SPLITS)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return {}
    folds = _json(path, kind=list)
    if fold >= len(folds):
        raise DataError(f"{path}: has {len(folds)} folds, so fold must be below that; got {fold}")
    chosen = folds[fold]
    found: dict[str, Part] = {str(case): "train" for case in chosen.get("train", ())}
    return found | {str(case): "validation" for case in chosen.get("val", ())}


def _json(path: Path, *, kind: type = dict) -> Any:
    content = read_json(path)
    if not isinstance(content, kind):
        raise DataError(f"{path}: must be a JSON {'list' if kind is list else 'object'}")
    return content
