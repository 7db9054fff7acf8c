"""Reads another program's predictions for a study's images: one file of probabilities, or one mask, per image."""

from __future__ import annotations

import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdsearch.data.frame import Frame
from kdsearch.data.pixels import Singles
from kdsearch.errors import DataError, first_line

SUFFIXES = (".npz", ".npy", ".tif", ".tiff", ".png")
"""In order of preference for files with the same name: some programs write masks next to their probabilities."""
NAMED = 5
"""An error lists at most this many images."""
ARRAYS = ("probabilities", "softmax")
"""Arrays that are read from an NPZ with several arrays, such as nnU-Net's."""
_UNREADABLE = (OSError, ValueError, TypeError, EOFError, SyntaxError, zipfile.BadZipFile, Image.DecompressionBombError)
Numbers: TypeAlias = npt.NDArray[np.generic]


class PredictionFolder:
    """A folder of predictions, in which each file has the name of its image."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError if the folder does not exist."""
        if not folder.is_dir():
            raise DataError(f"teacher.folder: {folder} is not a folder")
        self._folder = folder
        self._by_end: dict[str, set[Path]] = defaultdict(set)
        for path in self.files():
            parts = path.relative_to(folder).with_suffix("").parts
            for place in range(len(parts)):
                self._by_end["/".join(parts[place:])].add(path)

    def files(self) -> list[Path]:
        """Lists all files that may be predictions, sorted."""
        return sorted(path for path in self._folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())

    def read(self, ids: Sequence[str], *, frame: Frame, outputs: int) -> list[Singles | None]:
        """Reads probabilities K×H×W, in ``frame``, of the images ``SOURCE/NAME``; None if an image has no file.

        A file's path must end in ``SOURCE/NAME``, or in the last parts of it if they identify one image.
        Raises DataError if a file is not a prediction, or if several files match one image.
        """
        shared = Counter(name for image in ids for name in _names(image))
        paths = [self._path([name for name in _names(image) if shared[name] == 1]) for image in ids]
        arrays = {path: read_array(path, outputs=outputs) for path in dict.fromkeys(paths) if path is not None}
        whole = largest_whole_numbers(arrays)
        return [
            None if path is None else _framed(arrays[path], path, whole, frame=frame, outputs=outputs) for path in paths
        ]

    def _path(self, names: Sequence[str]) -> Path | None:
        found = next((self._by_end[name] for name in names if name in self._by_end), set())
        folders = {path.with_suffix("") for path in found}
        if len(folders) > 1:
            listed = ", ".join(sorted(str(path) for path in found))
            raise DataError(f"teacher.folder: several files match the image {names[0]}: {listed}; keep one")
        return min(found, key=lambda path: SUFFIXES.index(path.suffix.lower()), default=None)


def _names(image: str) -> list[str]:
    """Lists how the path of the image's file may end, the longest ending first."""
    parts = image.split("/")
    return ["/".join(parts[place:]) for place in range(len(parts))]


def _framed(array: Numbers, path: Path, whole: Mapping[int, int], *, frame: Frame, outputs: int) -> Singles:
    """Brings a prediction to the study's size; padding is background."""
    if outputs == 1:
        maps = fractions(array, path, whole)[None]
    elif array.ndim == 2:
        maps = _one_hot(array, path, outputs=outputs)
    else:
        maps = fractions(array, path, whole)
    rows, columns = frame.box((maps.shape[1], maps.shape[2]))
    size = columns.stop - columns.start, rows.stop - rows.start
    found = np.zeros((len(maps), frame.height, frame.width), dtype=np.float32)
    found[0] = outputs > 1
    for place, one in enumerate(maps):
        found[place, rows, columns] = np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR))
    return found


def _one_hot(array: Numbers, path: Path, *, outputs: int) -> Singles:
    """Turns class numbers into probabilities of 0 and 1; raises DataError for numbers without a class."""
    numbers = np.unique(array)
    if not set(numbers.tolist()) <= set(range(outputs)):
        raise DataError(
            f"{path}: a mask must hold class numbers from 0 to {outputs - 1}, got {numbers.min():g} to "
            f"{numbers.max():g}; write these, or probabilities {outputs}×H×W"
        )
    return np.stack([(array == number).astype(np.float32) for number in range(outputs)])


def require_all(found: Iterable[Singles | None], ids: Sequence[str], *, folder: str, of: str) -> list[Singles]:
    """Returns the predictions; raises DataError if some images have none."""
    known = list(found)
    gaps = [image for image, prediction in zip(ids, known, strict=True) if prediction is None]
    if gaps:
        more = f" and {len(gaps) - NAMED} more" if len(gaps) > NAMED else ""
        raise DataError(
            f"teacher.folder: {folder} has no prediction for {len(gaps)} of {len(ids)} {of} images: "
            f"{', '.join(gaps[:NAMED])}{more}; add files named NAME or SOURCE/NAME, or leave these images out"
        )
    return [prediction for prediction in known if prediction is not None]


def read_array(path: Path, *, outputs: int = 1) -> Numbers:
    """Reads a prediction as H×W numbers, or as C×H×W for several classes.

    nnU-Net's C×1×H×W is accepted too. For one class, C is at most 2 and the last channel is the object's. Raises
    DataError for any other file.
    """
    try:
        array = _array(path, indexed=outputs > 1)
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a prediction: {first_line(error)}") from error
    shape = array.shape
    if array.ndim == 4 and 1 in shape[:2]:
        array = array[0] if shape[0] == 1 else array[:, 0]
    fits = array.ndim == 2 or (array.ndim == 3 and len(array) in ((1, 2) if outputs == 1 else (outputs,)))
    if not fits or not array.size:
        channels = "background and lesion" if outputs == 1 else f"of all {outputs} classes, background first"
        raise DataError(f"{path}: a prediction must be H×W, or C×H×W with the channels {channels}, got shape {shape}")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: a prediction must hold numbers, got {array.dtype}")
    return array[-1] if array.ndim == 3 and outputs == 1 else array


def largest_whole_numbers(arrays: Mapping[Path, Numbers]) -> dict[int, int]:
    """Returns the largest value of all integer files, by bytes per value.

    It is taken over all files, because one file with only small values could be mistaken for a mask.
    """
    found: dict[int, int] = {}
    for array in arrays.values():
        if array.dtype.kind in "iu":
            size = min(array.dtype.itemsize, 2)
            found[size] = max(found.get(size, 0), int(array.max()))
    return found


def fractions(array: Numbers, path: Path, whole: Mapping[int, int]) -> Singles:
    """Converts a prediction to probabilities 0-1.

    Whole numbers are divided by 1 (masks), 255 or 65535, whichever is the smallest that fits the largest
    value of all integer files. Raises DataError if probabilities are not between 0 and 1.
    """
    values = array.astype(np.float32)
    if array.dtype.kind in "iu":
        largest = whole[min(array.dtype.itemsize, 2)]
        values /= next((most for most in (1, 255, 65535) if largest <= most), 1)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise DataError(
            f"{path}: probabilities must be between 0 and 1, got {values.min():.3g} to {values.max():.3g}; write "
            "probabilities, not logits"
        )
    return values


def _array(path: Path, *, indexed: bool) -> Numbers:
    """Reads a file; ``indexed`` palette images hold class numbers."""
    if path.suffix.lower() == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in ARRAYS if name in arrays.files][:1] or arrays.files
            if len(names) != 1:
                raise ValueError(
                    f"one array must be named {ARRAYS[0]}, found {', '.join(arrays.files) or 'an empty file'}"
                )
            return np.asarray(arrays[names[0]])
    with Image.open(path) as image:
        if image.mode in ("1", "L", "I", "I;16", "F") or (indexed and image.mode == "P"):
            return np.asarray(image)
        colors = np.asarray(image.convert("RGB"))
    if not (colors == colors[..., :1]).all():
        raise ValueError("it is a color image; write gray values")
    return np.asarray(colors[..., 0])
