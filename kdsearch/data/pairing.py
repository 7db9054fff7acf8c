"""Finds out which images and masks of a folder belong together, by their names and folders."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsearch.data.layout import FORMATS, NOT_UTF_8, Defect, Entry, Listing, Part, is_hidden, is_utf_8, other_formats
from kdsearch.data.pixels import SUFFIXES
from kdsearch.data.tables import names_a_group, normal
from kdsearch.errors import DataError

MASKS = r"masks?|labels?|segs?|segmentations?|annots?|annotations?|gts?|ground[ _-]?truths?"
"""Words by which a folder or a file is recognized as masks."""
IMAGES = r"images?|imgs?|frames?|pictures?|photos?|originals?|inputs?"
PARTS: dict[str, Part] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test"
}  # fmt: skip
"""Folder names and table cells that name a part of the split."""
MOST_LABELS = 12
"""More folders than this are groups, such as patients, and not labels."""
NAME = "{name}"
"""Stands for what an image and its mask have in common in the patterns ``images`` and ``masks``."""
FOLDER_WHERE = (
    "put images into images/ and masks of the same names into masks/, or put a mask such as NAME_mask.png next to each "
    "image"
)

_MASK_FOLDER = re.compile(rf"(?P<rest>.*?)[ _.-]?(?:{MASKS})", re.IGNORECASE)
_IMAGE_FOLDER = re.compile(rf"(?P<rest>.*?)[ _.-]?(?:{IMAGES})", re.IGNORECASE)
_AFTER = re.compile(rf"(?P<stem>.+?)[ _.-]+(?:{MASKS})(?P<count>[ _.-]?\d+)?", re.IGNORECASE)
_BEFORE = re.compile(rf"(?:{MASKS})(?:[ _.-]+|(?=\d))(?P<stem>.+)", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True, slots=True)
class _File:
    """An image or a mask, and what its name and folders say."""

    path: Path
    place: tuple[str, ...]
    """Its folders below the root, without words for images and masks."""
    is_mask: bool
    names: tuple[str, ...]
    """The stems of images that it may belong to, the likeliest first; an image's own stem."""

    @property
    def key(self) -> tuple[str, ...]:
        """The place, in lower case."""
        return tuple(one.lower() for one in self.place)

    @property
    def number(self) -> int | None:
        """The last number in the name."""
        found = _NUMBER.search(self.names[-1])
        return int(found[1]) if found else None


def pair_anywhere(root: Path) -> Listing:
    """Pairs the images and masks in a folder and its subfolders.

    Masks are recognized by a folder such as ``masks`` or ``trainannot``, or by a name such as ``x_mask``
    or ``mask_7``. An image's mask lies in the same folder or in a corresponding one, and has the same
    name, or, if no names match, the same number. Raises DataError if there are no images or no masks.
    """
    defects, files = list[Defect](), list[_File]()
    paths = _images_below(root)
    mask_folders = _mask_folders(paths, root)
    for path in paths:
        if not is_utf_8(path.name):
            defects.append(Defect(path=path, problem=NOT_UTF_8))
        else:
            files.append(_file(path, root, mask_folders))
    images, masks = ([one for one in files if one.is_mask is kind] for kind in (False, True))
    if not images or not masks:
        remedy = ("" if images else other_formats(root)) or FOLDER_WHERE
        raise DataError(f"{root} has {_count(len(images), 'image')} and {_count(len(masks), 'mask')}; {remedy}")
    pairs, strangers = _pairs(images, masks)
    twins = Counter((*one.key, one.names[0]) for one in images)
    for one in images:
        if one.path not in pairs:
            alone = twins[*one.key, one.names[0]] == 1
            defects.append(
                Defect(path=one.path, problem="has no mask" if alone else "has the same name as another image")
            )
    defects += [Defect(path=one.path, problem="has no image") for one in strangers]
    labels, groups = _meanings(images)
    ids = _ids(images, root)
    entries = tuple(
        Entry(
            id=ids[one.path],
            image=one.path,
            masks=tuple(pairs[one.path]),
            label=labels.get(one.place),
            group=groups.get(one.place),
            part=_part(one.place),
        )
        for one in images
        if one.path in pairs
    )
    folders = tuple(dict.fromkeys(one.path.parent for one in files))
    return Listing(entries=entries, defects=tuple(defects), folders=folders, wanted=f"{FORMATS} files; {FOLDER_WHERE}")


def _images_below(root: Path) -> list[Path]:
    """Lists all images in the folder and its subfolders, also behind links, except hidden ones."""
    found, seen = list[Path](), set[str]()
    for name, folders, files in os.walk(root, followlinks=True):
        folder = Path(name)
        folders[:] = [one for one in folders if not is_hidden(Path(one)) and os.path.realpath(folder / one) not in seen]
        seen |= {os.path.realpath(folder / one) for one in folders}
        found += [folder / one for one in files if Path(one).suffix.lower() in SUFFIXES and not is_hidden(Path(one))]
    return sorted(found)


def _mask_folders(paths: Sequence[Path], root: Path) -> set[Path]:
    """Folders named like masks, if the folder in which they lie has other images.

    So ``Dataset_BUSI_with_GT``, a folder that holds everything, is none.
    """
    inside: dict[Path, set[Path]] = defaultdict(set)
    for path in paths:
        for child in (path, *path.parents):
            if child == root:
                break
            inside[child.parent].add(child)
    found = set[Path]()
    for children in inside.values():
        named = {one for one in children if _MASK_FOLDER.fullmatch(one.name) and one in inside}
        if named < children:
            found |= named
    return found


def _file(path: Path, root: Path, mask_folders: Collection[Path]) -> _File:
    is_mask, place = False, list[str]()
    for folder in reversed(path.relative_to(root).parents[:-1]):
        marked = _MASK_FOLDER.fullmatch(folder.name) if root / folder in mask_folders else None
        is_mask = is_mask or marked is not None
        marked = marked or _IMAGE_FOLDER.fullmatch(folder.name)
        place.append(folder.name if marked is None else marked["rest"])
    stem = normal(path.stem)
    names = ([stem] if is_mask else []) + _stems_in(stem)
    return _File(
        path=path, place=tuple(filter(None, place)), is_mask=is_mask or bool(names), names=tuple(names) or (stem,)
    )


def _stems_in(stem: str) -> list[str]:
    """The stems of images that a mask's stem contains; none if it has no word for a mask."""
    if (after := _AFTER.fullmatch(stem)) is not None:
        return [*([f"{after['stem']}{after['count']}"] if after["count"] else []), after["stem"]]
    before = _BEFORE.fullmatch(stem)
    return [] if before is None else [before["stem"]]


def mask_stems(path: Path) -> tuple[str, ...]:
    """The stems of images that a mask may belong to, the likeliest first."""
    stem = normal(path.stem)
    return (stem, *_stems_in(stem))


def _pairs(images: Sequence[_File], masks: Sequence[_File]) -> tuple[dict[Path, list[Path]], list[_File]]:
    """Returns each image's masks, and the masks that belong to no image."""
    pairs: dict[Path, list[Path]] = defaultdict(list)
    by_name = _unique(((*one.key, one.names[0]), one) for one in images)
    left: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    paired = set[tuple[str, ...]]()
    for mask in masks:
        found = next((by_name[key] for name in mask.names if (key := (*mask.key, name)) in by_name), None)
        if found is None:
            left[mask.key].append(mask)
        else:
            paired.add(mask.key)
            pairs[found.path].append(mask.path)
    for key in [key for key in left if key not in paired]:
        here = [one for one in images if one.key == key]
        matched = _by_rest(here, left[key]) or _by_number(here, left[key]) or _by_stem(images, left[key])
        if matched is not None:
            for image, mask in matched:
                pairs[image.path].append(mask.path)
            del left[key]
    return pairs, [mask for several in left.values() for mask in several]


def _by_rest(images: Sequence[_File], masks: Sequence[_File]) -> list[tuple[_File, _File]] | None:
    """Pairs ``bus_0001-l`` with ``mask_0001-l``: by what is left without the beginning that all images or masks share.

    Returns None unless every mask finds an image and all that is left differs.
    """
    rests = [_rest([one.names[-1] for one in images]), _rest([one.names[-1] for one in masks])]
    if any(len(set(some)) < len(some) for some in rests) or not set(rests[1]) <= set(rests[0]):
        return None
    known = dict(zip(rests[0], images, strict=True))
    return [(known[rest], mask) for rest, mask in zip(rests[1], masks, strict=True)]


def _rest(names: Sequence[str]) -> list[str]:
    least, most = min(names, default=""), max(names, default="")
    shared = least[: next((place for place, one in enumerate(least) if one != most[place]), len(least))]
    shared = shared.rstrip("0123456789")
    return [name.removeprefix(shared) for name in names]


def _by_number(images: Sequence[_File], masks: Sequence[_File]) -> list[tuple[_File, _File]] | None:
    """Pairs by the last number in each name; None unless every mask finds an image and all numbers differ."""
    numbers = [one.number for one in images], [one.number for one in masks]
    if any(None in some or len(set(some)) < len(some) for some in numbers) or not set(numbers[1]) <= set(numbers[0]):
        return None
    known = dict(zip(numbers[0], images, strict=True))
    return [(known[mask.number], mask) for mask in masks]


def _by_stem(images: Sequence[_File], masks: Sequence[_File]) -> list[tuple[_File, _File]] | None:
    """Pairs by name across folders; None unless every mask finds an image whose name is unique."""
    known = _unique((one.names[0], one) for one in images)
    found = [(next((known[name] for name in mask.names if name in known), None), mask) for mask in masks]
    return None if any(image is None for image, _ in found) else [(image, mask) for image, mask in found if image]


def _unique(items: Iterable[tuple[object, _File]]) -> dict[object, _File]:
    """Maps keys to files, without keys that occur several times."""
    found: dict[object, _File | None] = {}
    for key, one in items:
        found[key] = None if key in found else one
    return {key: one for key, one in found.items() if one is not None}


def _meanings(images: Sequence[_File]) -> tuple[dict[tuple[str, ...], str], dict[tuple[str, ...], str]]:
    """Returns the labels and the groups that the folders of the images name, by place.

    The innermost folder that names no part of the split is a label. Folders that are named like patients,
    or are too many for labels, are groups.
    """
    named = {one.place: inner[-1] for one in images if (inner := [p for p in one.place if p.lower() not in PARTS])}
    if len(set(named.values())) < 2:
        return {}, {}
    if len(set(named.values())) > MOST_LABELS or all(names_a_group(name) for name in named.values()):
        return {}, {place: "/".join(p for p in place if p.lower() not in PARTS) for place in named}
    return named, {}


def _part(place: tuple[str, ...]) -> Part | None:
    """The part of the split that a folder names."""
    return next((PARTS[one.lower()] for one in place if one.lower() in PARTS), None)


def _ids(images: Sequence[_File], root: Path) -> dict[Path, str]:
    """Names each image by its folders and its stem; by its whole path if others have the same name."""
    short = {one.path: "/".join((*one.place, one.path.stem)) for one in images}
    counted = Counter(short.values())
    return {
        path: name if counted[name] == 1 else path.relative_to(root).as_posix() for path, name in short.items()
    }  # fmt: skip


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' * (number != 1)}"


def pair_by_patterns(root: Path, images: str, masks: str) -> Listing:
    """Pairs images and masks by two patterns of paths below the folder; a file that fits both is a mask.

    Raises DataError if no file fits one of them.
    """
    named: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    pictures: dict[str, Path] = {}
    defects = list[Defect]()
    fits_mask, fits_image = _regex(masks), _regex(images)
    for path in _images_below(root):
        where = normal(path.relative_to(root).as_posix())
        if (found := fits_mask.fullmatch(where)) is not None:
            named[found["name"]].append((found.groupdict().get("class", ""), path))
        elif (found := fits_image.fullmatch(where)) is None:
            continue
        elif (before := pictures.setdefault(found["name"], path)) != path:
            defects.append(Defect(path=path, problem=f"has the same name as {before.name}"))
    if not pictures or not named:
        raise DataError(
            f"{root}: {_count(len(pictures), 'file')} fit images: {images}, and {_count(len(named), 'file')} fit "
            f"masks: {masks}; both are patterns of paths below this folder, such as scans/{NAME}.png"
        )
    entries = tuple(
        Entry(
            id=name,
            image=path,
            masks=tuple(mask for _, mask in named[name]),
            classes=tuple(shows for shows, _ in named[name] if shows),
        )
        for name, path in pictures.items()
        if name in named
    )
    defects += [Defect(path=path, problem="has no mask") for name, path in pictures.items() if name not in named]
    defects += [Defect(path=some[0][1], problem="has no image") for name, some in named.items() if name not in pictures]
    folders = tuple(dict.fromkeys(path.parent for entry in entries for path in (entry.image, *entry.masks)))
    return Listing(entries=entries, defects=tuple(defects), folders=folders, wanted=f"{images} and {masks}")


def _regex(pattern: str) -> re.Pattern[str]:
    """Turns a pattern into a regular expression; ``{class}`` and ``*`` match within a folder."""
    parts = {NAME: "(?P<name>.+?)", "{class}": "(?P<class>[^/]+?)", "*": "[^/]*"}
    pieces = re.split(r"(\{name\}|\{class\}|\*)", normal(pattern))
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces))
