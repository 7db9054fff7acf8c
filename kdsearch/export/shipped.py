"""Recognises a student that was shipped before."""

from __future__ import annotations

from pathlib import Path

from kdsearch.errors import KdsearchError, ModelError
from kdsearch.export.description import Description, read_description, require_unchanged
from kdsearch.export.files import WEIGHTS
from kdsearch.export.folder import Form
from kdsearch.files.digests import digest_file
from kdsearch.trials.record import Student


def find_shipped(folder: Path, student: Student, *, weights: Path, form: Form) -> Description | None:
    """What the folder says of itself where it holds that student in that form, whole; None where there is no folder.

    Raises KdsearchError where something else is there.
    """
    if not folder.exists():
        return None
    try:
        found = read_description(folder)
        for name in found.files:
            require_unchanged(folder / name, found)
        difference = _difference(found, student, weights=weights, form=form)
    except ModelError as error:
        difference = str(error)
    if difference:
        raise KdsearchError(f"{folder} exists already ({difference}); remove it, or name another folder with --out")
    return found


def _difference(found: Description, student: Student, *, weights: Path, form: Form) -> str:
    """What the folder holds else; empty where it is the same."""
    if found.trial != student.number or found.files.get(WEIGHTS) != digest_file(weights):
        return f"it holds trial {found.trial} of a study {found.study}, not these weights"
    if found.onnx.preprocessing != form.preprocessing:
        return f"it was written with{'' if found.onnx.preprocessing else 'out'} --with-preprocessing"
    if found.int8.bound != form.int8_bound:
        return f"it was written with --int8-bound {found.int8.bound:g}"
    return ""
