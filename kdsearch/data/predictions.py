"""Reads what another program predicted of a study's images: a file of probabilities, or a mask, for each."""

from __future__ import annotations

import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdsearch.data.pixels import Singles
from kdsearch.errors import DataError, first_line

SUFFIXES = (".npz", ".npy", ".tif", ".tiff", ".png")
"""Of two files of one name in one folder, the earlier kind is read: programs write masks beside their probabilities."""
NAMED = 5
"""Images that an error names."""
ARRAYS = ("probabilities", "softmax")
"""What is read of an NPZ of several arrays, such as nnU-Net's."""
CHANNELS = 2
"""Most in front of a map: what is no lesion, and the lesion."""
_UNREADABLE = (OSError, ValueError, TypeError, EOFError, SyntaxError, zipfile.BadZipFile, Image.DecompressionBombError)
Numbers: TypeAlias = npt.NDArray[np.generic]


class PredictionFolder:
    """A folder of predictions, each a file named as its image."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError where there is no such folder."""
        if not folder.is_dir():
            raise DataError(f"teacher.folder: {folder} is not a folder")
        self._folder = folder
        self._by_end: dict[str, set[Path]] = defaultdict(set)
        for path in self.files():
            parts = path.relative_to(folder).with_suffix("").parts
            for place in range(len(parts)):
                self._by_end["/".join(parts[place:])].add(path)

    def files(self) -> list[Path]:
        """All that may be predictions, in order."""
        return sorted(path for path in self._folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())

    def read(self, ids: Sequence[str], *, size: int) -> list[Singles | None]:
        """For each image ``SOURCE/NAME`` the probability of a lesion, ``size``×``size``; None where there is no file.

        A file's path ends in ``SOURCE/NAME``, or in as much of its end as no other of the images has. Raises DataError
        for a file that is no prediction, and where several may be of one image.
        """
        shared = Counter(name for image in ids for name in _names(image))
        paths = [self._path([name for name in _names(image) if shared[name] == 1]) for image in ids]
        arrays = {path: read_array(path) for path in dict.fromkeys(paths) if path is not None}
        whole = largest_whole_numbers(arrays)
        return [None if path is None else _at_size(arrays[path], path, whole, size) for path in paths]

    def _path(self, names: Sequence[str]) -> Path | None:
        """The file of the longest of the names that has one."""
        found = next((self._by_end[name] for name in names if name in self._by_end), set())
        folders = {path.with_suffix("") for path in found}
        if len(folders) > 1:
            listed = ", ".join(sorted(str(path) for path in found))
            raise DataError(f"teacher.folder: several files may be the prediction of {names[0]}: {listed}; keep one")
        return min(found, key=lambda path: SUFFIXES.index(path.suffix.lower()), default=None)


def _names(image: str) -> list[str]:
    """How its file's path may end, the whole first."""
    parts = image.split("/")
    return ["/".join(parts[place:]) for place in range(len(parts))]


def _at_size(array: Numbers, path: Path, whole: Mapping[int, int], size: int) -> Singles:
    values = fractions(array, path, whole)
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)


def require_all(found: Iterable[Singles | None], ids: Sequence[str], *, folder: str, of: str) -> list[Singles]:
    """The predictions, where no image lacks one; raises DataError that names those that do."""
    known = list(found)
    gaps = [image for image, prediction in zip(ids, known, strict=True) if prediction is None]
    if gaps:
        more = f" and {len(gaps) - NAMED} more" if len(gaps) > NAMED else ""
        raise DataError(
            f"teacher.folder: {folder} has no prediction for {len(gaps)} of {len(ids)} {of} images: "
            f"{', '.join(gaps[:NAMED])}{more}; add them, named NAME or SOURCE/NAME, or leave these images out"
        )
    return [prediction for prediction in known if prediction is not None]


def read_array(path: Path) -> Numbers:
    """H×W numbers of a file: of C×H×W, or nnU-Net's C×1×H×W, the last of at most two channels, the lesion's.

    Raises DataError where the file is nothing of the kind.
    """
    try:
        array = _array(path)
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a prediction: {first_line(error)}") from error
    shape = array.shape
    if array.ndim == 4 and 1 in shape[:2]:
        array = array[0] if shape[0] == 1 else array[:, 0]
    channels = len(array) if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or not array.size or channels > CHANNELS:
        raise DataError(
            f"{path}: a prediction must be H×W, or C×H×W of what is no lesion and the lesion, got shape {shape}"
        )
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: a prediction must hold numbers, got {array.dtype}")
    return array[-1] if array.ndim == 3 else array


def largest_whole_numbers(arrays: Mapping[Path, Numbers]) -> dict[int, int]:
    """The largest value of all files of whole numbers, by the bytes of one: a faint map alone would pass for a mask."""
    found: dict[int, int] = {}
    for array in arrays.values():
        if array.dtype.kind in "iu":
            size = min(array.dtype.itemsize, 2)
            found[size] = max(found.get(size, 0), int(array.max()))
    return found


def fractions(array: Numbers, path: Path, whole: Mapping[int, int]) -> Singles:
    """Probabilities 0-1; whole numbers are a mask, or fractions of 255 or 65535, by the largest of all such files.

    Raises DataError where they do not lie between 0 and 1.
    """
    values = array.astype(np.float32)
    if array.dtype.kind in "iu":
        largest = whole[min(array.dtype.itemsize, 2)]
        values /= next((most for most in (1, 255, 65535) if largest <= most), 1)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise DataError(
            f"{path}: probabilities must lie between 0 and 1, got {values.min():.3g} to {values.max():.3g}; write "
            "probabilities, not logits"
        )
    return values


def _array(path: Path) -> Numbers:
    if path.suffix.lower() == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in ARRAYS if name in arrays.files][:1] or arrays.files
            if len(names) != 1:
                raise ValueError(f"holds {', '.join(arrays.files) or 'nothing'}; one must be called {ARRAYS[0]}")
            return np.asarray(arrays[names[0]])
    with Image.open(path) as image:
        if image.mode in ("1", "L", "I", "I;16", "F"):
            return np.asarray(image)
        colours = np.asarray(image.convert("RGB"))
    if not (colours == colours[..., :1]).all():
        raise ValueError("it has colours; write grey values")
    return np.asarray(colours[..., 0])
