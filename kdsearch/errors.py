"""The errors kdsearch raises for what a user can fix."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


class KdsearchError(Exception):
    """A user's mistake, explained in full by its message: where, what must hold, what was got, what would work."""


class StudyFileError(KdsearchError):
    """A study file that does not say what a study file must say."""


class DataError(KdsearchError):
    """Images or masks that cannot be used as they are."""


class TeacherError(KdsearchError):
    """A teacher that cannot be built, loaded or trained."""


class EncoderError(KdsearchError):
    """An encoder that there is not, or whose weights cannot be had or do not fit."""


class SearchError(KdsearchError):
    """A search that cannot start or continue."""


class NotRunYetError(SearchError):
    """A study that has no storage yet."""


class ModelError(KdsearchError):
    """A student's folder or file that cannot be used as it is."""


class ExportError(KdsearchError):
    """A student that cannot be written in a form that computes the same."""


class ShapeError(KdsearchError):
    """A tensor or an image size that a model cannot take."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'width'?"`` where one of the choices is near, else the empty string."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type's name where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def bucket_errors() -> tuple[type[Exception], ...]:
    """What S3's libraries raise beside OSError; empty where they are not loaded, and so cannot have raised."""
    names = (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"))
    loaded = [(sys.modules.get(module), name) for module, name in (*names, ("boto3.exceptions", "Boto3Error"))]
    return tuple(getattr(module, name) for module, name in loaded if module is not None)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an operating-system error while writing ``path`` into a KdsearchError that names it."""
    try:
        yield
    except OSError as error:
        raise KdsearchError(f"{path} cannot be written: {error.strerror or error}; name another place") from error
