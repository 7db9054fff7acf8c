"""What was noticed when a study's files became arrays, kept next to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from kdsearch.data.entry import Remark
from kdsearch.errors import KdsearchError
from kdsearch.files.schema import Schema, unchanged
from kdsearch.files.whole import write_whole

SCHEMA = Schema(what="reading of images", upgrades=(unchanged,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Of the files of one fingerprint."""

    data: str
    """The fingerprint of the arrays. It differs from the files' if older releases made other arrays of them."""
    shrunk: Mapping[str, int | None]
    """Images whose lesion would vanish at the study's size, and the least size at which it does not; None: there is no
    such size."""
    rotated: tuple[str, ...]
    """Images that EXIF turns otherwise than their masks."""

    def remarks(self, size: int) -> tuple[Remark, ...]:
        """What a user should know; ``size`` is the study's."""
        least = [one or 0 for one in self.shrunk.values()]
        remedy = f"data.size: {max(least, default=0)} keeps all" if all(least) else "no data.size keeps all"
        found = (
            Remark(
                what=f"images whose lesion is too small for size {size}, of which one pixel is kept ({remedy})",
                names=tuple(self.shrunk),
            ),
            Remark(
                what="images that EXIF turns, but not their masks; pixels are read as they are stored, so look whether "
                "the masks fit",
                names=self.rotated,
            ),
        )
        return tuple(one for one in found if one.names)


_READING = TypeAdapter(Reading)


def keep_reading(home: Path, files: str, reading: Reading) -> None:
    """Keeps it for the files of that fingerprint; raises OSError."""
    write_whole(str(_place(home, files)), json.dumps(SCHEMA.stamped(asdict(reading)), indent=1).encode())


def known_reading(home: Path, files: str) -> Reading | None:
    """What was kept for the files of that fingerprint; None if nothing was, or it cannot be read."""
    try:
        content = json.loads(_place(home, files).read_text(encoding="utf-8"))
        return _READING.validate_python(SCHEMA.upgraded(content))
    except (OSError, ValueError, TypeError, ValidationError, KdsearchError):
        return None


def _place(home: Path, files: str) -> Path:
    return home / "data" / f"{files}.reading.json"
