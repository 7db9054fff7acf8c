"""Lists a folder of DICOM images and clips, with masks as DICOM segmentations or as images."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kdsearch.data.dicom import ENDINGS, Header, Segment, header, is_dicom, require_pydicom, segments_of
from kdsearch.data.layout import Defect, Entry, Listing, Remark, is_hidden, is_utf_8, shown
from kdsearch.data.pairing import mask_stems
from kdsearch.data.pixels import SUFFIXES
from kdsearch.data.tables import normal
from kdsearch.errors import DataError

DICOM_WHERE = (
    "put DICOM files into it, and their masks: DICOM segmentations, or images such as NAME_mask.png, and "
    "NAME_0007_mask.png for the seventh frame of a clip"
)
_FRAME = re.compile(r"(?P<stem>.+?)[ _.-]+(?:frame|f)?[ _.-]*(?P<number>\d+)", re.IGNORECASE)
GroupBy = Literal["patient", "study", "file"]


@dataclass(frozen=True, slots=True)
class _Mask:
    """A mask of one frame: an image, or one frame of a segmentation and the class that it shows."""

    path: Path
    frame: int = 0
    name: str | None = None


@dataclass(frozen=True, slots=True)
class _Clip:
    """An image or a clip."""

    path: Path
    id: str
    facts: Header


class _Folder:
    """The files of a folder by what they are."""

    def __init__(self, root: Path) -> None:
        self.clips, self.segmentations, self.pictures = list[_Clip](), list[Path](), list[Path]()
        self.defects, self.others = list[Defect](), list[Path]()
        for path in _files(root):
            named = path.suffix.lower() in ENDINGS
            if path.suffix.lower() in SUFFIXES:
                self.pictures.append(path)
            elif not is_utf_8(path.name):
                self.defects.append(Defect(path=path, problem="its name is not UTF-8; rename it"))
            elif is_dicom(path):
                self._add(path, root)
            elif named:
                self.defects.append(Defect(path=path, problem="is not a DICOM file: it lacks the letters DICM"))
            else:
                self.others.append(path)

    def _add(self, path: Path, root: Path) -> None:
        try:
            facts = header(path)
        except DataError as error:
            self.defects.append(Defect(path=path, problem=str(error)))
            return
        if facts.kind == "image":
            self.clips.append(_Clip(path, _bare(path.relative_to(root).as_posix()), facts))
        elif facts.kind == "mask":
            self.segmentations.append(path)
        else:
            self.others.append(path)


def has_dicom(root: Path) -> bool:
    """Returns whether there is a DICOM file in the folder or below it."""
    return any(path.suffix.lower() not in SUFFIXES and is_dicom(path) for path in _files(root))


def read_dicom(root: Path, *, every: int = 1, group: GroupBy = "patient", with_masks: bool = True) -> Listing:
    """Lists the images and frames that have masks; all of them without ``with_masks``.

    Of each clip, every ``every``-th of these frames is used. Groups are numbered, so that no identifier of a patient
    is kept. Raises DataError if there are no images, or no masks.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; {DICOM_WHERE}")
    require_pydicom()
    folder = _Folder(root)
    if not folder.clips:
        raise DataError(f"{root} has no DICOM images; {'; '.join([DICOM_WHERE, *map(str, folder.defects[:3])])}")
    masks = _masks(folder) if with_masks else {}
    if with_masks and not masks and not folder.defects:
        raise DataError(f"{root} has {len(folder.clips)} DICOM images and no masks; {DICOM_WHERE}")
    groups, entries, bare = dict[str, str](), list[Entry](), 0
    for clip in folder.clips:
        frames: Sequence[int] = sorted(masks.get(clip.path, {})) if with_masks else range(clip.facts.frames)
        bare += clip.facts.frames - len(frames)
        kin = _kin(clip, group)
        name = groups.setdefault(kin, f"{group} {len(groups) + 1}")
        entries += (_entry(clip, frame, masks.get(clip.path, {}), group=name, kin=kin) for frame in frames[::every])
    counted = Counter(entry.id for entry in entries)
    entries = [entry if counted[entry.id] == 1 else _with_whole_name(entry, root) for entry in entries]
    used = {path for entry in entries for path in (entry.image, *entry.masks)}
    remarks = _remarks(folder, bare=bare if with_masks else 0, groups=groups, group=group)
    return Listing(
        entries=tuple(entries),
        defects=tuple(folder.defects),
        folders=(root,),
        known=tuple(path for path in _files(root) if path not in used),
        wanted=DICOM_WHERE,
        remarks=remarks,
    )


def _files(root: Path) -> list[Path]:
    found, seen = list[Path](), set[str]()
    for name, folders, files in os.walk(root, followlinks=True):
        place = Path(name)
        folders[:] = [one for one in folders if not is_hidden(Path(one)) and os.path.realpath(place / one) not in seen]
        seen |= {os.path.realpath(place / one) for one in folders}
        found += [place / one for one in files if not is_hidden(Path(one)) and (place / one).is_file()]
    return sorted(found)


def _bare(name: str) -> str:
    """Strips DICOM's ending; others, such as the last number of an identifier, belong to the name."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in ENDINGS else name


def _entry(clip: _Clip, frame: int, masks: Mapping[int, Sequence[_Mask]], *, group: str, kin: str) -> Entry:
    found = masks.get(frame, ())
    return Entry(
        id=clip.id if clip.facts.frames == 1 else f"{clip.id}/{frame + 1:04d}",
        image=clip.path,
        frame=frame,
        masks=tuple(mask.path for mask in found),
        mask_frames=tuple(mask.frame for mask in found),
        classes=tuple(mask.name for mask in found if mask.name is not None),
        group=group,
        kin=kin,
        spacing_mm=clip.facts.spacing_mm,
    )


def _with_whole_name(entry: Entry, root: Path) -> Entry:
    """Distinguishes ``a.dcm`` from ``a``, and a clip's first frame from a file ``0001`` in a folder of its name."""
    name = entry.image.relative_to(root).as_posix()
    return replace(entry, id=f"{name}/{entry.frame + 1:04d}")


def _masks(folder: _Folder) -> dict[Path, dict[int, list[_Mask]]]:
    """Returns the masks of each image's frames; what belongs to no image becomes a defect."""
    found: dict[Path, dict[int, list[_Mask]]] = defaultdict(lambda: defaultdict(list))
    by_uid = {clip.facts.uid: clip for clip in folder.clips}
    for path in folder.segmentations:
        try:
            placed = [(*_frame_of(part, by_uid), _Mask(path, part.frame, part.name)) for part in segments_of(path)]
        except DataError as error:
            folder.defects.append(Defect(path=path, problem=str(error)))
            continue
        for clip, frame, mask in placed:
            found[clip.path][frame].append(mask)
    named = defaultdict[str, list[_Clip]](list)
    for clip in folder.clips:
        named[normal(_bare(clip.path.name))].append(clip)
    broken = {normal(Path(_bare(defect.path.name)).name) for defect in folder.defects}
    for path in folder.pictures:
        if not broken.isdisjoint(name for stem in mask_stems(path) for name in (stem, _without_number(stem))):
            continue
        try:
            clip, frame = _named(path, named)
        except DataError as error:
            folder.defects.append(Defect(path=path, problem=str(error)))
            continue
        if any(mask.name is not None for mask in found[clip.path][frame]):
            folder.defects.append(Defect(path=path, problem="its frame has a DICOM segmentation too; keep one of them"))
        else:
            found[clip.path][frame].append(_Mask(path))
    return {path: dict(frames) for path, frames in found.items()}


def _without_number(stem: str) -> str:
    """The name without that of a frame."""
    numbered = _FRAME.fullmatch(stem)
    return stem if numbered is None else numbered["stem"]


def _frame_of(part: Segment, by_uid: Mapping[str, _Clip]) -> tuple[_Clip, int]:
    """Finds the image, and its frame, that a segment belongs to."""
    clip = by_uid.get(part.image)
    if clip is None:
        raise DataError("belongs to an image that is not in the folder")
    frames = clip.facts.frames
    if part.image_frame is None and frames > 1:
        raise DataError(f"does not say which of {frames} frames its masks belong to")
    frame = part.image_frame or 0
    if not 0 <= frame < frames:
        raise DataError(f"belongs to frame {frame + 1} of an image with {frames} frames")
    return clip, frame


def _named(path: Path, clips: Mapping[str, Sequence[_Clip]]) -> tuple[_Clip, int]:
    """Finds the image, and the frame counted from 0, that a mask's name means."""
    for stem in mask_stems(path):
        clip = _one_of(clips.get(stem, ()), path)
        if clip is not None and clip.facts.frames == 1:
            return clip, 0
        if clip is not None:
            raise DataError(
                f"does not say which of {clip.facts.frames} frames it belongs to; call it {stem}_0001_mask"
                f"{path.suffix} for the first"
            )
        numbered = _FRAME.fullmatch(stem)
        clip = _one_of(clips.get(numbered["stem"], ()), path) if numbered else None
        if numbered and clip is not None:
            if 1 <= int(numbered["number"]) <= clip.facts.frames:
                return clip, int(numbered["number"]) - 1
            raise DataError(
                f"names frame {int(numbered['number'])}, but {numbered['stem']} has frames from 1 to "
                f"{clip.facts.frames}"
            )
    raise DataError("belongs to no DICOM image, because none has this name")


def _one_of(several: Sequence[_Clip], mask: Path) -> _Clip | None:
    """The only image of a name, or the one next to the mask; raises DataError if that does not decide."""
    if len(several) < 2:
        return several[0] if several else None
    near = [clip for clip in several if clip.path.parent == mask.parent]
    near = near or [clip for clip in several if clip.path.parent == mask.parent.parent]
    if len(near) != 1:
        raise DataError(f"{len(several)} images have this name; put the mask next to its image")
    return near[0]


def _kin(clip: _Clip, by: GroupBy) -> str:
    """What distinguishes a patient, an examination or a file; a file is its own patient if that is unknown."""
    known = {"patient": clip.facts.patient or clip.facts.study, "study": clip.facts.study, "file": clip.facts.uid}[by]
    return f"{by} {known}" if known else f"path {clip.path.resolve()}"


def _remarks(folder: _Folder, *, bare: int, groups: Mapping[str, str], group: GroupBy) -> tuple[Remark, ...]:
    burned: dict[bool | None, list[str]] = defaultdict(list)
    for clip in folder.clips:
        burned[clip.facts.burned_in].append(shown(clip.id))
    alike = group == "patient" and len(groups) == 1
    studies = {clip.facts.study for clip in folder.clips}
    kinds = Counter(path.suffix.lower() or "no ending" for path in folder.others)
    found = (
        Remark(
            what="images with text burned into them (BurnedInAnnotation), such as a patient's name; look at them "
            "before you share overlays, reports or a student",
            names=tuple(burned[True]),
        ),
        Remark(
            what="images that do not say whether text is burned into them (BurnedInAnnotation); look at some before "
            "you share overlays, reports or a student",
            names=tuple(burned[None]),
        ),
        Remark(
            what="examinations with the same patient's identifier; if it is a placeholder, set group: study for this "
            "source",
            names=tuple(str(place + 1) for place in range(len(studies))) if alike and len(studies) > 1 else (),
        ),
        Remark(
            what="images and frames without a mask, which are left out; name the folder under data.unlabelled to "
            "train with them too",
            names=tuple(str(place + 1) for place in range(bare)),
            quiet=True,
        ),
        Remark(
            what=f"other files, which are ignored ({', '.join(sorted(kinds))})", names=tuple(map(shown, folder.others))
        ),
    )
    return tuple(one for one in found if one.names)
