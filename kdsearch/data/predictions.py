"""Reads what another program predicted of a study's images: a file of probabilities, or a mask, for each."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdsearch.data.pixels import Singles
from kdsearch.errors import DataError, first_line

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".npz")
NAMED = 5
"""Images that an error names."""
ARRAYS = ("probabilities", "softmax")
"""What is read of an NPZ of several arrays, such as nnU-Net's."""
_UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile, Image.DecompressionBombError)


class PredictionFolder:
    """A folder of predictions, each a file named as its image."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError where there is no such folder, or two of its files have one name."""
        if not folder.is_dir():
            raise DataError(f"teacher.folder: {folder} is not a folder")
        self._folder = folder
        self._files: dict[str, Path] = {}
        for path in self.files():
            name = str(path.relative_to(folder).with_suffix(""))
            for known in dict.fromkeys((name, path.stem)):
                other = self._files.setdefault(known, path)
                if other != path and known == name:
                    raise DataError(f"teacher.folder: {other} and {path} are of one name; keep one of them")

    def files(self) -> list[Path]:
        """All that may be predictions, in order."""
        return sorted(path for path in self._folder.rglob("*") if path.suffix.lower() in SUFFIXES)

    def read(self, ids: Sequence[str], *, size: int) -> list[Singles | None]:
        """For each image ``SOURCE/NAME`` the probability of a lesion, ``size``×``size``; None where there is no file.

        A file is called ``SOURCE/NAME``, or as much of its end as no other of the images has. Raises DataError for a
        file that is no prediction.
        """
        shared = Counter(name for image in ids for name in _names(image))
        return [self._read([name for name in _names(image) if shared[name] == 1], size) for image in ids]

    def _read(self, names: Sequence[str], size: int) -> Singles | None:
        path = next((self._files[name] for name in names if name in self._files), None)
        if path is None:
            return None
        whole = read_prediction(path)
        resized = Image.fromarray(whole).resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(resized, dtype=np.float32)


def _names(image: str) -> list[str]:
    """What its file may be called, the whole first."""
    name = image.partition("/")[2]
    return list(dict.fromkeys((image, name, Path(name).name)))


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


def read_prediction(path: Path) -> Singles:
    """H×W probabilities of a lesion, 0-1, of a file.

    Whole numbers are fractions of their type's largest, or a mask where none is above 1; of several channels in front
    (C×H×W, or nnU-Net's C×1×H×W) the last is the lesion's. Raises DataError where the file is nothing of the kind.
    """
    try:
        array = _array(path)
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a prediction: {first_line(error)}") from error
    while array.ndim > 2:
        array = array[0] if array.ndim == 4 and array.shape[1] != 1 and len(array) == 1 else array[-1]
    if array.ndim != 2 or not array.size:
        raise DataError(f"{path}: a prediction must be H×W or C×H×W, got shape {array.shape}")
    values = _fractions(array)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise DataError(
            f"{path}: probabilities must lie between 0 and 1, got {values.min():.3g} to {values.max():.3g}; write "
            "probabilities, not logits"
        )
    return values


def _array(path: Path) -> npt.NDArray[np.generic]:
    if path.suffix.lower() == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in ARRAYS if name in arrays.files] or arrays.files
            if len(names) != 1:
                raise ValueError(f"holds {', '.join(arrays.files) or 'nothing'}; one must be called {ARRAYS[0]}")
            return np.asarray(arrays[names[0]])
    with Image.open(path) as image:
        plain = image if image.mode in ("1", "L", "I", "I;16", "F") else image.convert("L")
        return np.asarray(plain)


def _fractions(array: npt.NDArray[np.generic]) -> Singles:
    if array.dtype.kind == "f":
        return np.asarray(array, dtype=np.float32)
    values = array.astype(np.float32)
    most = 255.0 if array.dtype == np.uint8 else 65535.0  # Pillow opens some 16-bit files as signed 32-bit numbers
    return np.asarray(values if values.max() <= 1 else values / most, dtype=np.float32)
