"""Writes the settings of a study file as Markdown tables, from the models that read it."""

from __future__ import annotations

import json
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import annotated_types
from pydantic.fields import FieldInfo

from kdsearch.config.ranges import FIXED, Choice, FloatRange, IntRange, Section
from kdsearch.config.study import StudyConfig
from kdsearch.config.training import TeacherTraining, TrainingSpec
from kdsearch.markdown import markdown_table

RANGES = (Choice, IntRange, FloatRange)
HEAD = ("key", "takes", "default", "meaning")
WORDS = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
BOUNDS = {annotated_types.Ge: "≥", annotated_types.Gt: ">", annotated_types.Le: "≤", annotated_types.Lt: "<"}
TAGS = ("reader", "loss", "family", "kind")
"""Keys whose value selects one of several sections."""
TOP = "study"
"""The name of the part with the top-level keys."""
WIDTH = 100


def reference() -> str:
    """All settings: one table per section, in the order of the file; nested sections follow their parent."""
    return "\n\n".join(parts().values())


def parts() -> dict[str, str]:
    """The settings by top-level section; the keys of the top level are called ``study``."""
    found = {TOP: [_table(StudyConfig)]}
    found |= {key: list(_sections(field, key, set())) for key, field in StudyConfig.model_fields.items()}
    return {key: "\n\n".join(sections).replace("``", "`") for key, sections in found.items() if sections}


def _sections(field: FieldInfo, name: str, printed: set[type[Section]]) -> Iterator[str]:
    """The sections allowed for a key, and their subsections; a section with several names is printed once."""
    models = [model for model in dict.fromkeys(_models(field.annotation)) if model not in printed]
    terms = [model for model in models if "loss" in model.model_fields and _tag(model) == "loss"]
    for model in models:
        printed.add(model)
        if model in terms[1:]:
            continue
        yield _terms(terms, name) if model in terms else f"## `{name}`{_choice(model)}\n\n{_described(model)}"
        if model in terms:
            continue
        for key, inner in model.model_fields.items():
            if not _is_repeated(model, key):
                yield from _sections(inner, f"{name}.{key}", printed)


def _described(model: type[Section]) -> str:
    base = _taken_from(model)
    shared = f"Takes all keys of {base}, without ranges, and:" if base else ""
    return "\n\n".join(part for part in (_wrapped(model.__doc__), shared, _table(model)) if part)


def _terms(models: list[type[Section]], name: str) -> str:
    """The terms of a list: one row per loss, then one row per key with the losses that take it."""
    required = [key for key, field in models[0].model_fields.items() if field.is_required()]
    (compared,) = (key for key in required if key != "loss")
    losses = []
    keys: dict[str, list[tuple[str, FieldInfo]]] = {}
    for model in models:
        (loss,) = typing.get_args(model.model_fields["loss"].annotation)
        places = ", ".join(f"`{place}`" for place in typing.get_args(model.model_fields[compared].annotation))
        losses.append((f"`{loss}`", places, _paragraph(model.__doc__)))
        for key, field in model.model_fields.items():
            if key not in required:
                keys.setdefault(key, []).append((loss, field))
    rows = []
    for key, users in keys.items():
        fields = [field for _, field in users]
        taken = max((_takes(field) for field in fields), key=len)
        default = " or ".join(dict.fromkeys(_default(field) for field in fields))
        by = "all" if len(users) == len(models) else ", ".join(f"`{loss}`" for loss, _ in users)
        rows.append((f"`{key}`", taken, default, by, _paragraph(fields[0].description)))
    return (
        f"## `{name}[…]`\n\nA list of terms. Each names what it compares (`{compared}`) and by which `loss`.\n\n"
        + markdown_table(("loss", compared, "meaning"), losses)
        + "\n\n"
        + markdown_table(("key", "takes", "default", "losses", "meaning"), rows)
    )


def _table(model: type[Section]) -> str:
    searched = model.__name__.endswith("Space")
    rows = [_row(key, field, searched=searched) for key, field in model.model_fields.items()]
    return markdown_table(HEAD, [row for row in rows if not _is_repeated(model, row[0].strip("`"))])


def _taken_from(model: type[Section]) -> str:
    """The section whose keys the model repeats, as a link; only the teacher's training has one."""
    return "[`training`](training.md)" if model is TeacherTraining else ""


def _is_repeated(model: type[Section], key: str) -> bool:
    return bool(_taken_from(model)) and key in TrainingSpec.model_fields


def _tag(model: type[Section]) -> str:
    """The key whose value selects the section; empty if there is no choice."""
    return next((key for key in TAGS if key in model.model_fields and model.model_fields[key].is_required()), "")


def _choice(model: type[Section]) -> str:
    """The part of a heading that names the values for which the section is used."""
    if not (key := _tag(model)):
        return ""
    return f", {key} {', '.join(f'`{word}`' for word in typing.get_args(model.model_fields[key].annotation))}"


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
    """Describes each kind of value that the annotation allows, except ranges."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        bounds = " and ".join(f"{BOUNDS[type(m)]} {getattr(m, type(m).__name__.lower())}" for m in _bounds(inner[1:]))
        for part in _parts(inner[0]):
            yield f"{part} {bounds}".strip() if bounds and part in WORDS.values() else part
    elif origin is Literal:
        yield ", ".join(f"`{json.dumps(word) if not isinstance(word, str) else word}`" for word in inner)
    elif origin is tuple:
        yield "a list"
    elif origin is dict:
        yield "names, or numbers by name"
    elif origin in (typing.Union, types.UnionType):
        for part in inner:
            yield from _parts(part)
    elif annotation in WORDS:
        yield WORDS[annotation]
    elif isinstance(annotation, type) and issubclass(annotation, Section) and not issubclass(annotation, RANGES):
        yield "a section"


def _bounds(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for entry in metadata:
        inner = entry.metadata if isinstance(entry, FieldInfo) else [entry]
        yield from (bound for bound in inner if type(bound) in BOUNDS)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, Section) or (isinstance(value, tuple) and any(isinstance(part, Section) for part in value)):
        return ""
    if value is None or value == ():
        return "none"
    shown = list(value) if isinstance(value, tuple) else value
    text = shown if isinstance(shown, str) else json.dumps(shown)
    return f"`{text}`"


def _models(annotation: Any) -> Iterator[type[Section]]:
    """The sections that the annotation allows, except ranges."""
    for inner in _walk(annotation):
        if isinstance(inner, type) and issubclass(inner, Section) and not issubclass(inner, RANGES):
            yield inner


def _walk(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in typing.get_args(annotation):
        yield from _walk(inner)


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def _wrapped(text: str | None) -> str:
    return textwrap.fill(_paragraph(text), WIDTH, break_long_words=False, break_on_hyphens=False)
