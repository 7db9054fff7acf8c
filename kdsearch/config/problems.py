"""Turns pydantic's findings into lines a person can act on: file, line, field, what was got, what is allowed."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdsearch.config.student import family_of
from kdsearch.config.teacher import kind_of
from kdsearch.config.yaml_file import Location, YamlFile
from kdsearch.errors import nearest

DISCRIMINATORS = ("family", "kind")
"""Keys by whose word a section is told from others that may stand in its place."""
RENAMED = {"search.silence": "heartbeat_timeout", "search.pruning.optimism": "quantile"}
"""Keys of older study files by their dotted names, and what they are called now; readers leave them out."""
KEY_FIRST = re.compile(r"([a-z_]+(?:\.[a-z_]+)*)[:, ]")
VALUE_ERROR = "Value error, "


def describe(error: ValidationError, file: YamlFile, model: type[BaseModel]) -> str:
    """All problems of a study file, one line each, in the order of the file."""
    details = [detail for detail in error.errors(include_url=False) if not _follows_from_others(detail)]
    lines = {_line(detail, file, model) for detail in details}
    return "\n".join(text for _, text in sorted(lines))


def former_settings(error: ValidationError, file: YamlFile) -> list[Location]:
    """Where the file has settings that an older release had, if that is all that is wrong with it; else empty."""
    details = error.errors(include_url=False)
    places = [_in_file(detail, file.content) for detail in details]
    known = all(detail["type"] == "extra_forbidden" for detail in details)
    return places if known and all(_dotted(place) in RENAMED for place in places) else []


def without(content: Any, places: list[Location]) -> Any:
    """The content of a file without what stands in these places."""
    if not isinstance(content, dict | list):
        return content
    pairs = enumerate(content) if isinstance(content, list) else content.items()
    kept = [
        (key, without(value, [place[1:] for place in places if len(place) > 1 and place[0] == key]))
        for key, value in pairs
        if (key,) not in places
    ]
    return [value for _, value in kept] if isinstance(content, list) else dict(kept)


def _follows_from_others(detail: ErrorDetails) -> bool:
    """Pydantic calls a list too short when its items were wrong; the items are reported themselves."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _line(detail: ErrorDetails, file: YamlFile, model: type[BaseModel]) -> tuple[int, str]:
    location = _in_file(detail, file.content)
    if detail["type"] == "union_tag_invalid":
        location = (*location, *(key for key in DISCRIMINATORS if key in detail["input"]))
    number = file.line((*location, *_key_named_first(detail)))
    field = _dotted(location)
    return number, f"{file.path}:{number}: {field + ': ' if field else ''}{_message(detail, location, file, model)}"


def _key_named_first(detail: ErrorDetails) -> Location:
    """The key that a refusal of a section begins with, such as ``search.start: inherit cuts …``."""
    if detail["type"] != "value_error":
        return ()
    named = KEY_FIRST.match(detail["msg"].removeprefix(VALUE_ERROR))
    return tuple(named[1].split(".")) if named else ()


def _in_file(detail: ErrorDetails, content: object) -> Location:
    """Pydantic's location without the union tags, which do not stand in the file."""
    location: list[str | int] = []
    parts = detail["loc"]
    for index, part in enumerate(parts):
        inside_list = isinstance(content, list) and isinstance(part, int) and part < len(content)
        if inside_list or (isinstance(content, dict) and part in content):
            content = content[part]  # type: ignore[index]  # checked on the lines above
            location.append(part)
        elif index == len(parts) - 1 and detail["type"] == "missing":
            location.append(part)
    return tuple(location)


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _message(detail: ErrorDetails, location: Location, file: YamlFile, model: type[BaseModel]) -> str:
    kind, got = detail["type"], detail["input"]
    match kind:
        case "extra_forbidden":
            if _dotted(location) in RENAMED:
                return f"is now called {RENAMED[_dotted(location)]}"
            allowed = sorted(set(_fields_at(model, location[:-1], file.content)))
            return f"unknown key; allowed here: {', '.join(allowed)}{nearest(str(location[-1]), allowed)}"
        case "missing":
            return "is missing"
        case "literal_error" | "union_tag_invalid":
            context = detail.get("ctx", {})
            expected = str(context.get("expected", context.get("expected_tags", "")))
            allowed = [word or number for word, number in re.findall(r"'([^']*)'|(-?\d[\d.]*)", expected)]
            word = context.get("tag", got)
            return f"must be one of {', '.join(allowed)}; got {word!r}{nearest(str(word), allowed)}"
        case "union_tag_not_found":
            return "needs the key reader: phantom, busi, udiat, busbra, breast or folder"
        case "string_pattern_mismatch":
            return f"got {got!r}, which does not have the form {detail.get('ctx', {}).get('pattern')}"
        case "value_error":
            return detail["msg"].removeprefix(VALUE_ERROR)
        case _:
            shown = f"; got {got!r}" if isinstance(got, bool | int | float | str | None) else ""
            return detail["msg"].replace("Input should be", "must be").replace("Field required", "is missing") + shown


def _fields_at(model: type[BaseModel], location: Location, content: Any) -> Iterator[str]:
    """The keys allowed at a location, following only the union members that fit what stands in the file."""
    candidates = [model]
    for part in location:
        content = content[part]
        if isinstance(part, int):
            continue
        candidates = [
            inner
            for candidate in candidates
            for name, field in candidate.model_fields.items()
            if part in (name, field.alias)
            for inner in _models_in(field.annotation)
        ]
        candidates = [inner for inner in candidates if _fits(inner, content)] or candidates
    if isinstance(content, dict):
        candidates = [candidate for candidate in candidates if _fits(candidate, content)] or candidates
    for candidate in candidates:
        for name, field in candidate.model_fields.items():
            yield field.alias or name


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def _fits(model: type[BaseModel], content: Any) -> bool:
    if not isinstance(content, dict):
        return True
    names = {field.alias or name for name, field in model.model_fields.items()}
    if "reader" in names and "reader" in content:
        return content["reader"] in typing.get_args(model.model_fields["reader"].annotation)
    if "family" in names:
        return family_of(content) in typing.get_args(model.model_fields["family"].annotation)
    if "kind" in names:
        return kind_of(content) in typing.get_args(model.model_fields["kind"].annotation)
    if "on" in content:  # a term of a list, told from others by its loss
        return "on" in names and content.get("loss") in typing.get_args(model.model_fields["loss"].annotation)
    return not ({"choice", "int", "float"} & names) or bool({"choice", "int", "float"} & names & content.keys())
