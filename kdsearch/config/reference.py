"""The settings of a study file as Markdown tables, from the models that read it."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import annotated_types
from pydantic.fields import FieldInfo

from kdsearch.config.ranges import FIXED, Choice, FloatRange, IntRange, Section
from kdsearch.config.study import StudyConfig
from kdsearch.markdown import markdown_table

RANGES = (Choice, IntRange, FloatRange)
HEAD = ("key", "takes", "default", "meaning")
WORDS = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
BOUNDS = {annotated_types.Ge: "≥", annotated_types.Gt: ">", annotated_types.Le: "≤", annotated_types.Lt: "<"}


def reference() -> str:
    """A table a section, in the order of the file; sections within sections follow theirs."""
    return "\n\n".join(_sections(StudyConfig, "")).replace("``", "`")


def _sections(model: type[Section], name: str) -> Iterator[str]:
    rows = [_row(key, field, searched=model.__name__.endswith("Space")) for key, field in model.model_fields.items()]
    title = f"## `{name}`\n\n{_paragraph(model.__doc__)}\n\n" if name else ""
    yield title + markdown_table(HEAD, rows)
    for key, field in model.model_fields.items():
        for inner in dict.fromkeys(_models(field.annotation)):
            yield from _sections(inner, f"{name}.{key}{_told_apart_by(inner)}".lstrip("."))


def _told_apart_by(model: type[Section]) -> str:
    """By which key, and which of its words, a section is told from others in its place; empty where it is alone."""
    for key in ("reader", "loss", "family", "kind"):
        field = model.model_fields.get(key)
        if field is not None and field.is_required():
            listed = "[…]" if key in ("reader", "loss") else ""
            return f"{listed} of {key} {', '.join(typing.get_args(field.annotation))}"
    return ""


def _row(key: str, field: FieldInfo, *, searched: bool) -> tuple[str, str, str, str]:
    fixed = ", fixed" if searched and FIXED in field.metadata else ""
    return f"`{key}`", _takes(field), _default(field) + fixed, _paragraph(field.description)


def _takes(field: FieldInfo) -> str:
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    parts = list(dict.fromkeys(_parts(annotation)))
    if any(isinstance(inner, type) and issubclass(inner, RANGES) for inner in _walk(field.annotation)):
        parts.append("or a range")
    return ", ".join(part for part in parts if part)


def _parts(annotation: Any) -> Iterator[str]:
    """In words, each kind of value that the annotation takes, ranges aside."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        bounds = " and ".join(f"{BOUNDS[type(m)]} {getattr(m, type(m).__name__.lower())}" for m in _bounds(inner[1:]))
        for part in _parts(inner[0]):
            yield f"{part} {bounds}".strip() if bounds and part in WORDS.values() else part
    elif origin is Literal:
        yield ", ".join(f"`{json.dumps(word) if not isinstance(word, str) else word}`" for word in inner)
    elif origin is tuple:
        yield "a list"
    elif origin in (typing.Union, types.UnionType):
        for part in inner:
            yield from _parts(part)
    elif annotation in WORDS:
        yield WORDS[annotation]
    elif isinstance(annotation, type) and issubclass(annotation, Section) and not issubclass(annotation, RANGES):
        yield "a section, below"


def _bounds(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for entry in metadata:
        inner = entry.metadata if isinstance(entry, FieldInfo) else [entry]
        yield from (bound for bound in inner if type(bound) in BOUNDS)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.default
    if isinstance(value, Section) or (isinstance(value, tuple) and any(isinstance(part, Section) for part in value)):
        return ""
    if value is None or value == ():
        return "none"
    shown = list(value) if isinstance(value, tuple) else value
    text = shown if isinstance(shown, str) else json.dumps(shown)
    return f"`{text}`"


def _models(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a value may be, ranges aside."""
    for inner in _walk(annotation):
        if isinstance(inner, type) and issubclass(inner, Section) and not issubclass(inner, RANGES):
            yield inner


def _walk(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in typing.get_args(annotation):
        yield from _walk(inner)


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())
