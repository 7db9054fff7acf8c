"""Errors that users can fix themselves."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


class KdsearchError(Exception):
    """A mistake that the user can fix; the message says where, what must hold, what was found and what would work."""


class StudyFileError(KdsearchError):
    """A study file that is missing or invalid."""


class DataError(KdsearchError):
    """Images or masks that cannot be used."""


class TeacherError(KdsearchError):
    """A teacher that cannot be built, loaded or trained."""


class EncoderError(KdsearchError):
    """An encoder that does not exist, or whose weights are unavailable or do not match."""


class SearchError(KdsearchError):
    """A search that cannot start or continue."""


class NotRunYetError(SearchError):
    """A study that was never run, so that its Optuna database does not exist."""


class ModelError(KdsearchError):
    """A student's folder or model file that cannot be used."""


class ExportError(KdsearchError):
    """A student whose exported model does not compute the same as the trained network."""


class ShapeError(KdsearchError):
    """A tensor shape or an image size that a model does not accept."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns ``"; did you mean 'width'?"`` if one of the choices is similar to the word, else an empty string."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def first_line(error: BaseException) -> str:
    """Returns the first line of the error's message, or the name of its type if it has no message."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def bucket_errors() -> tuple[type[Exception], ...]:
    """Returns the errors other than OSError that the S3 libraries raise; empty if these libraries are not loaded."""
    names = (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"))
    loaded = [(sys.modules.get(module), name) for module, name in (*names, ("boto3.exceptions", "Boto3Error"))]
    return tuple(getattr(module, name) for module, name in loaded if module is not None)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError that occurs while ``path`` is written into a KdsearchError that names the path."""
    try:
        yield
    except OSError as error:
        raise KdsearchError(f"{path} cannot be written: {error.strerror or error}; choose another path") from error
