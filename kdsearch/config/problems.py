"""Turns pydantic's errors into messages that name file, line and field, what was found, and what is allowed."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdsearch.config.data import CLASS_NAMES, TAGS
from kdsearch.config.distillation import DistillationSpace
from kdsearch.config.networks import WEIGHTS_FORM, family_of, kind_of
from kdsearch.config.ranges import Choice
from kdsearch.config.renamed import NO_LONGER_READ, up_to_date
from kdsearch.config.search import ADDRESSES
from kdsearch.config.sources import MASK_PATTERNS, NAMES, PATTERNS
from kdsearch.config.yaml_file import Location, YamlFile
from kdsearch.errors import nearest

DISCRIMINATORS = ("family", "kind", "reader")
"""Keys whose value selects one of several sections."""
KEY_FIRST = re.compile(r"([a-z_]+(?:\.[a-z_]+)*)[:, ]")
VALUE_ERROR = "Value error, "
MOST_SHOWN = 60
"""Maximum number of characters of a value in a message."""
MOST_KEYS = 10
"""Maximum number of a section's keys in a message."""
QUOTES = "'\""
NAME = "must start with a letter or digit and contain only letters, digits, '.', '_' and '-'"
FORMS = {
    NAMES: NAME,
    ADDRESSES: "must be auto, local or HOST:PORT, such as head.example:6379",
    WEIGHTS_FORM: "must be none, timm, bundled, package:NAME or file:PATH, such as file:weights.safetensors",
    CLASS_NAMES: "must start with a letter or digit and contain only letters, digits, spaces, '.', '_' and '-'",
    PATTERNS: "must contain {name} once, for what an image and its mask have in common, such as scans/{name}.png",
    MASK_PATTERNS: "must contain {name} once, and {class} at most once, such as truth/{class}/{name}.png",
    TAGS: "must contain only lowercase letters, digits and '-', such as breast-ultrasound",
}
"""Descriptions of the patterns that text must match."""
KINDS = {
    "bool_type": "true or false",
    "dict_type": "a section, with keys and values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_type": "a section, with keys and values",
    "string_too_short": "some text",
    "string_type": "text",
    "tuple_type": "a list",
}
"""What a value must be, by pydantic's type of error."""


Problem: TypeAlias = tuple[int, str]
"""A line of a file, and the message for it."""


def rename_settings(file: YamlFile) -> tuple[YamlFile, list[Problem]]:
    """Returns the file with current names, and a problem for each old name."""
    now = up_to_date(file.content)
    problems = []
    for one in now.renamed:
        number, what = file.line(one.place), f"{one.old_word} is" if one.old_word else "is"
        problems.append((number, f"{file.place(one.place)}: {_dotted(one.place)}: {what} now called {one.now}"))
    return file.moved(now.content, now.places), problems


def describe(error: ValidationError, file: YamlFile, model: type[BaseModel], *, renamed: Sequence[Problem] = ()) -> str:
    """Describes all problems of a study file, one per line, in the order of the file."""
    details = [detail for detail in error.errors(include_url=False) if not _follows_from_others(detail)]
    return listed({*renamed, *(_line(detail, file, model) for detail in details)})


def listed(problems: Iterable[Problem]) -> str:
    """Joins the problems, one per line, in the order of the file."""
    return "\n".join(text for _, text in sorted(problems))


def former_settings(error: ValidationError, file: YamlFile) -> list[Location]:
    """Locations of settings that only an older release has; empty if the file has other problems."""
    details = error.errors(include_url=False)
    places = [_in_file(detail, file.content) for detail in details]
    known = all(detail["type"] == "extra_forbidden" for detail in details)
    return places if known and all(_dotted(place) in NO_LONGER_READ for place in places) else []


def without(content: Any, places: list[Location]) -> Any:
    """Returns the content without the values at these locations."""
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
    """Whether a list is only called too short because its items are invalid; these have errors of their own."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _line(detail: ErrorDetails, file: YamlFile, model: type[BaseModel]) -> tuple[int, str]:
    location = _in_file(detail, file.content)
    if detail["type"] == "union_tag_invalid":
        location = (*location, *(key for key in DISCRIMINATORS if key in detail["input"]))
    place = (*location, *_key_named_first(detail))
    field = _dotted(location)
    message = f"{field + ': ' if field else ''}{_message(detail, location, file, model)}"
    return file.line(place), f"{file.place(place)}: {message}"


def _key_named_first(detail: ErrorDetails) -> Location:
    """The key with which the message of a section's rule starts, such as ``search.start: inherit needs …``."""
    if detail["type"] != "value_error":
        return ()
    named = KEY_FIRST.match(detail["msg"].removeprefix(VALUE_ERROR))
    return tuple(named[1].split(".")) if named else ()


def _in_file(detail: ErrorDetails, content: object) -> Location:
    """Pydantic's location without union tags, which are not keys of the file but may have the name of one."""
    location: list[str | int] = []
    parts = detail["loc"]
    tag = _tag_of(content)
    for index, part in enumerate(parts):
        if tag is not None and part == tag:
            tag = None
            continue
        inside_list = isinstance(content, list) and isinstance(part, int) and part < len(content)
        if inside_list or (isinstance(content, dict) and part in content):
            content = content[part]  # type: ignore[index]  # checked on the lines above
            tag = _tag_of(content, listed=inside_list)
            location.append(part)
        elif index == len(parts) - 1 and detail["type"] == "missing":
            location.append(part)
    return tuple(location)


def _tag_of(content: object, *, listed: bool = False) -> object:
    """The value that selects the section among several; pydantic adds it to a location once."""
    keys = (*DISCRIMINATORS, "loss") if listed else DISCRIMINATORS
    return next((content[key] for key in keys if key in content), None) if isinstance(content, dict) else None


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _message(detail: ErrorDetails, location: Location, file: YamlFile, model: type[BaseModel]) -> str:
    kind, got = detail["type"], detail["input"]
    context = detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            if _dotted(location) in NO_LONGER_READ:
                return f"is now called {NO_LONGER_READ[_dotted(location)]}"
            allowed = sorted(set(_fields_at(model, location[:-1], file.content)))
            return f"unknown key; allowed here: {', '.join(allowed)}{nearest(str(location[-1]), allowed)}"
        case "missing":
            return "is missing"
        case "union_tag_not_found":
            key = str(context["discriminator"]).strip("'")
            words = _words_of(key, model, location, file.content)
            return f"missing key {key} (one of {', '.join(words)}); for example, write {key}: {words[0]}"
        case _ if kind in KINDS:
            return f"must be {KINDS[kind]}; got {_shown(got)}{_remedy(kind, got, location, file.content, model)}"
        case _:
            return _message_of_value(detail)


def _message_of_value(detail: ErrorDetails) -> str:
    """The message for a value of the right type that is not allowed."""
    kind, got = detail["type"], detail["input"]
    context = detail.get("ctx", {})
    match kind:
        case "literal_error" | "union_tag_invalid":
            expected = str(context.get("expected", context.get("expected_tags", "")))
            return _not_among(_words(expected), context.get("tag", got))
        case "string_pattern_mismatch":
            return f"{FORMS[str(context['pattern'])]}; got {_shown(got)}{_nearly(got, str(context['pattern']))}"
        case "value_error":
            return detail["msg"].removeprefix(VALUE_ERROR)
        case "too_long" | "too_short":
            least, most = context.get("min_length"), context.get("max_length")
            wanted = f"at most {most}" if kind == "too_long" else f"at least {least}"
            return f"must be a list of {wanted} value{'s' * ((most or least) != 1)}; got {context['actual_length']}"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters; got {len(got)}"
        case _:
            return f"{detail['msg'].replace('Input should be', 'must be')}; got {_shown(got)}"


def _words(expected: str) -> list[str]:
    return [word or number for word, number in re.findall(r"'([^']*)'|(-?\d[\d.]*)", expected)]


def _not_among(allowed: list[str], got: object) -> str:
    """Lists the allowed words or numbers, and suggests the nearest."""
    word = got if isinstance(got, str) else json.dumps(got)
    hint = nearest(word, allowed)
    if word in allowed:
        hint = f"; write {word} {'without' if isinstance(got, str) else 'in'} quotes"
    return f"must be one of {', '.join(allowed)}; got {_shown(got)}{hint}"


def _words_of(key: str, model: type[BaseModel], location: Location, content: Any) -> list[str]:
    """The words allowed for the key in the sections that are allowed at the location."""
    fields = [one.model_fields[key] for one in _models_at(model, location, content) if key in one.model_fields]
    words = [field.annotation for field in fields if typing.get_origin(field.annotation) is typing.Literal]
    return list(dict.fromkeys(word for one in words for word in typing.get_args(one)))


def _shown(got: object) -> str:
    """The value that was found, as in YAML; ``a section`` or ``a list`` for larger ones."""
    match got:
        case None:
            return "nothing"
        case bool():
            return str(got).lower()
        case dict():
            return "a section"
        case list() | tuple():
            return "a list"
        case str():
            return repr(got if len(got) <= MOST_SHOWN else f"{got[:MOST_SHOWN]}…")
        case _:
            return str(got)[:MOST_SHOWN]


def _nearly(got: object, pattern: str) -> str:
    """Suggests a spelling that matches the pattern, if there is an obvious one."""
    meant = re.sub(r"[^A-Za-z0-9._:/-]+", "-", str(got)).strip("-._")
    lower = meant.lower()
    if lower in ("none", "timm", "bundled", "auto", "local") and lower != got:
        return f"; did you mean {lower!r}?"
    fitting = next((word for word in (meant, lower) if re.match(pattern, word)), "")
    return f"; for example, write {fitting}" if fitting and ":" not in fitting and len(fitting) <= MOST_SHOWN else ""


def _remedy(kind: str, got: object, location: Location, content: Any, model: type[BaseModel]) -> str:
    """Suggests how to write the value that was probably meant; empty if unknown."""
    if isinstance(got, str) and kind in ("int_type", "float_type", "bool_type"):
        if got.lower() in ("on", "off", "yes", "no"):
            return f"; write {str(got.lower() in ('on', 'yes')).lower()}"
        if re.fullmatch(r"[-+]?\d[\d_.]*([eE][-+]?\d+)?", got):
            return f"; write {got} without quotes"
    if kind == "string_type" and isinstance(got, bool | int | float):
        return f'; write "{_shown(got)}", in quotes'
    if isinstance(got, list) and kind in ("int_type", "float_type") and _may_be_range(location, content, model):
        word = "int" if kind == "int_type" else "float"
        return f"; a range is written as {{{word}: [low, high]}}, a choice as {{choice: [a, b]}}"
    if kind == "tuple_type":
        if location[-1] in ("int", "float"):
            return "; write [low, high]"
        return "; write a dash before each item" if isinstance(got, dict) else f"; write [{_shown(got).strip(QUOTES)}]"
    if kind in ("model_type", "dict_type"):
        keys = sorted(set(_fields_at(model, location, content)))
        return (
            f"; its keys are {', '.join(keys)}" if len(keys) <= MOST_KEYS else f"; write its keys, such as {keys[0]}:"
        )
    return ""


def _may_be_range(location: Location, content: Any, model: type[BaseModel]) -> bool:
    return any(issubclass(inner, Choice) for inner in _models_at(model, location, content, fitting=False))


def _fields_at(model: type[BaseModel], location: Location, content: Any) -> Iterator[str]:
    """The keys allowed at a location by the union members that fit the content."""
    for candidate in _models_at(model, location, content):
        for name, field in candidate.model_fields.items():
            yield field.alias or name


def _models_at(
    model: type[BaseModel], location: Location, content: Any, *, fitting: bool = True
) -> list[type[BaseModel]]:
    """The sections allowed at a location; with ``fitting``, only those that fit its content."""
    candidates = [model]
    for part in location:
        known: Any = content
        content = known[part] if isinstance(content, list) or part in known else None
        if isinstance(part, int):
            candidates = [inner for inner in candidates if _fits(inner, content)] or candidates
            continue
        candidates = [
            inner
            for candidate in candidates
            for name, field in candidate.model_fields.items()
            if part in (name, field.alias)
            for inner in _models_in(field.annotation)
            if not (isinstance(content, dict) and _is_term(inner))
            if not (isinstance(content, list) and inner is DistillationSpace)
        ]
        candidates = [inner for inner in candidates if _fits(inner, content)] or candidates
    if fitting and isinstance(content, dict):
        candidates = [candidate for candidate in candidates if _fits(candidate, content)] or candidates
    return candidates


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def _is_term(model: type[BaseModel]) -> bool:
    """Whether it is a term of a list of distillation terms, which its loss selects."""
    return "loss" in model.model_fields and model.model_fields["loss"].is_required()


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
    if _is_term(model):
        return content.get("loss") in typing.get_args(model.model_fields["loss"].annotation)
    return not ({"choice", "int", "float"} & names) or bool({"choice", "int", "float"} & names & content.keys())
