"""Pairs images and masks of two folders by file name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from kdsearch.data.entry import Defect, Entry, Listing
from kdsearch.data.pixels import SUFFIXES


def pair_by_stem(
    images: Path,
    masks: Path,
    *,
    mask_stem: Callable[[str], str] = lambda stem: stem,
    label_of: Callable[[str], str | None] = lambda _: None,
    group_of: Callable[[str], str | None] = lambda _: None,
    known: Collection[str] | None = None,
) -> Listing:
    """Every image with the mask of the same stem.

    An image without a mask, a mask without an image, a stem that stands twice, and an image that is not among the
    ``known`` are defects.
    """
    mask_files = _by_stem(masks)
    entries: list[Entry] = []
    defects: list[Defect] = []
    for stem, files in _by_stem(images).items():
        found = mask_files.pop(mask_stem(stem), [])
        if len(files) > 1:
            defects.append(Defect(path=files[1], problem=f"has the same name as {files[0].name}"))
        elif known is not None and stem not in known:
            defects.append(Defect(path=files[0], problem="is not in the table, so its patient is not known"))
        elif found:
            entry = Entry(id=stem, image=files[0], masks=tuple(found), label=label_of(stem), group=group_of(stem))
            entries.append(entry)
        else:
            defects.append(Defect(path=files[0], problem=f"has no mask ({mask_stem(stem)} in {masks})"))
    defects += [Defect(path=files[0], problem=f"has no image in {images}") for files in mask_files.values()]
    return Listing(entries=tuple(entries), defects=tuple(defects))


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    return found
