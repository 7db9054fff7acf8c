"""Reads study files with the line of every value, and writes YAML that reads back as the same values."""

from __future__ import annotations

import codecs
import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import yaml

from kdsearch.errors import StudyFileError, first_line

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
Location: TypeAlias = tuple[str | int, ...]

MAX_VALUES = 20_000
MAX_DEPTH = 50
MOST_SHOWN = 60
"""Maximum number of characters of a value in a message."""
MERGE = "tag:yaml.org,2002:merge"
_LIKE_A_NUMBER = re.compile(r"[-+]?[0-9.][0-9_.eE+-]*")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}


class _StudyLoader(yaml.SafeLoader):
    """YAML's core schema: ``1e-3`` is a number, ``no`` and ``on`` are words, nothing becomes a date."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name and type


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+(_[0-9]+)*", "-+0123456789"),
    ("float", r"[-+]?([0-9]+(_[0-9]+)*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _StudyLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _whole_number(loader: _StudyLoader, node: yaml.ScalarNode) -> int:
    """Reads ``010`` as ten; in YAML 1.1 it is eight."""
    return int(str(loader.construct_scalar(node)).replace("_", ""))


_StudyLoader.add_constructor("tag:yaml.org,2002:int", _whole_number)


class YamlFile:
    """A YAML mapping and the lines of its values.

    Attributes:
        path: the path as given by the user.
        content: the mapping as plain dictionaries, lists and scalars.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file; raises StudyFileError if it is missing, not YAML, or not a mapping."""
        self.path = path
        self._lines: dict[Location, int] = {}
        self._given: dict[Location, str] = {}
        self._merged: dict[int, dict[str, tuple[yaml.ScalarNode, yaml.Node]]] = {}
        self._count = 0
        root = self._compose()
        if not isinstance(root, yaml.MappingNode):
            raise StudyFileError(f"{path}: expected `key: value` pairs at the top level")
        content = self._value(root, (), ())
        assert isinstance(content, dict)
        self.content: dict[str, Plain] = content

    @classmethod
    def of(cls, content: Mapping[str, object]) -> YamlFile:
        """Wraps a mapping, which has no lines; raises StudyFileError for values that YAML cannot represent."""
        made = cls.__new__(cls)
        made.path, made._lines, made._given = Path("study"), {}, {}  # noqa: SLF001 - its own
        try:
            made.content = json.loads(json.dumps(content, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise StudyFileError(f"study: {first_line(error)}; write text, numbers, lists and dicts only") from error
        return made

    def place(self, location: Location) -> str:
        """The location in messages: the file and the line if known, or the setting on the command line."""
        for length in range(len(location), 0, -1):
            if location[:length] in self._given:
                return f"command line: {self._given[location[:length]]}"
        return f"{self.path}:{self.line(location)}" if self._lines else f"{self.path}"

    def moved(self, content: dict[str, Plain], places: Mapping[Location, Location]) -> YamlFile:
        """Returns the file with other content; ``places`` maps each new location to the one in the file."""
        other = copy.copy(self)
        other.content = content
        other._lines = {now: self._lines[was] for now, was in places.items() if was in self._lines}  # noqa: SLF001 - its own
        other._given = {now: self._given[was] for now, was in places.items() if was in self._given}  # noqa: SLF001 - its own
        return other

    def with_settings(self, settings: Sequence[str]) -> YamlFile:
        """Returns the file with settings ``KEY.PATH=VALUE``, which replace its own; values are YAML.

        Raises StudyFileError if a setting has another form, or its path leads through something that is no section.
        """
        if not settings:
            return self
        other = copy.copy(self)
        other.content, other._given = copy.deepcopy(self.content), dict(self._given)  # noqa: SLF001 - its own
        for text in settings:
            key, equals, value = text.partition("=")
            location: Location = tuple(int(one) if one.isdecimal() else one for one in key.split("."))
            if not equals or not all(str(one) for one in location):
                raise StudyFileError(f"{text}: expected KEY=VALUE, such as training.epochs=20")
            _set(other.content, location, _value_of(value, text), text)
            other._given[location] = text  # noqa: SLF001 - its own
        return other

    def line(self, location: Location) -> int:
        """The line of the value, or of the innermost section around it that has one."""
        while location and location not in self._lines:
            location = location[:-1]
        return self._lines.get(location, 1)

    def _compose(self) -> yaml.Node | None:
        text = self._text()
        try:
            self._loader = _StudyLoader(text)
            return self._loader.get_single_node()
        except yaml.reader.ReaderError as error:
            place = text.count("\n", 0, error.position) + 1
            raise StudyFileError(
                f"{self.path}:{place}: contains the control character U+{int(error.character):04X}; remove it"
            ) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            raise StudyFileError(f"{self.path}{line}: not valid YAML: {error.problem or error.context}") from error
        except (ValueError, OverflowError) as error:
            raise StudyFileError(f"{self.path}: not valid YAML: an escape such as \\U is not a character") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise StudyFileError(f"{self.path}: not valid YAML: {first_line(error)}") from error

    def _text(self) -> str:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            raise StudyFileError(f"{self.path}: no such study file") from None
        except OSError as error:
            raise StudyFileError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 4 * content.count(0) > len(content)
        try:
            if not wide:
                return content.decode()
        except UnicodeDecodeError as error:
            raise StudyFileError(f"{self.path}: is not UTF-8 text; save it as UTF-8") from error
        raise StudyFileError(f"{self.path}: is not UTF-8 text; is it UTF-16? save it as UTF-8")

    def _value(self, node: yaml.Node, location: Location, above: tuple[int, ...]) -> Plain:
        line = node.start_mark.line + 1
        self._lines.setdefault(location, line)
        self._count += 1
        if self._count > MAX_VALUES or id(node) in above:
            raise StudyFileError(f"{self.path}:{line}: anchors expand to more than {MAX_VALUES:,} values")
        if len(above) > MAX_DEPTH:
            raise StudyFileError(f"{self.path}:{line}: nested more than {MAX_DEPTH} levels deep")
        if node.tag not in _PLAIN_TAGS:
            raise StudyFileError(f"{self.path}:{line}: YAML tag {node.tag!r} is not allowed; use plain data")
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location, above)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*location, i), above) for i, item in enumerate(node.value)]
        try:
            value: Plain = self._loader.construct_object(node)
        except (ValueError, KeyError) as error:
            shown = str(node.value)[:MOST_SHOWN]
            raise StudyFileError(
                f"{self.path}:{line}: {shown!r} is not a valid {node.tag.rpartition(':')[2]}"
            ) from error
        self._refuse_halves(str(node.value), line)
        return value

    def _refuse_halves(self, text: str, line: int) -> None:
        """Raises StudyFileError for half of a surrogate pair, which YAML can represent but JSON and UTF-8 cannot."""
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise StudyFileError(
                f"{self.path}:{line}: contains half of a character ({ascii(text)[:MOST_SHOWN]}); remove it"
            )

    def _mapping(self, node: yaml.MappingNode, location: Location, above: tuple[int, ...]) -> dict[str, Plain]:
        mapping: dict[str, Plain] = {}
        for key, (key_node, value_node) in self._pairs(node, ()).items():
            self._lines[*location, key] = key_node.start_mark.line + 1
            mapping[key] = self._value(value_node, (*location, key), above)
        return mapping

    def _pairs(self, node: yaml.MappingNode, above: tuple[int, ...]) -> dict[str, tuple[yaml.ScalarNode, yaml.Node]]:
        """Returns the keys and values of the mappings it merges, followed by its own.

        Each mapping is merged only once. PyYAML before 6.0.4 copies its pairs each time, so a file of 600 characters
        could fill the memory.
        """
        if id(node) in self._merged:
            return self._merged[id(node)]
        if id(node) in above:
            raise StudyFileError(f"{self.path}:{node.start_mark.line + 1}: a mapping merges itself")
        self._refuse_repeated_keys(node)
        merged: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        own: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag != MERGE:
                self._refuse_halves(str(key_node.value), key_node.start_mark.line + 1)
                own[str(key_node.value)] = key_node, value_node
                continue
            several = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for other in reversed(several):  # the first one takes precedence
                if not isinstance(other, yaml.MappingNode):
                    line = other.start_mark.line + 1
                    raise StudyFileError(f"{self.path}:{line}: expected a mapping or list of mappings for merging")
                merged |= self._pairs(other, (*above, id(node)))
        self._merged[id(node)] = merged | own
        return self._merged[id(node)]

    def _refuse_repeated_keys(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise StudyFileError(f"{self.path}:{line}: a key must be text")
            if key_node.value in seen and key_node.tag != MERGE:
                raise StudyFileError(f"{self.path}:{line}: duplicate key {key_node.value!r}")
            seen.add(key_node.value)


def _value_of(value: str, text: str) -> Plain:
    """Reads the value of a setting as a study file does."""
    loader = _StudyLoader(value)
    try:
        return loader.get_single_data()  # type: ignore[no-any-return]  # the loader knows plain values only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise StudyFileError(f"command line: {text}: {value!r} is not valid YAML: {first_line(error)}") from error


def _set(content: dict[str, Plain], location: Location, value: Plain, text: str) -> None:
    """Replaces the value at the location; makes sections that are missing."""
    here: Plain = content
    for place, key in enumerate(location):
        last = place == len(location) - 1
        if isinstance(here, dict):
            inner = here.get(str(key))
            here[str(key)] = value if last else {} if inner is None else inner
            here = here[str(key)]
        elif isinstance(here, list) and isinstance(key, int) and key < len(here):
            here[key] = value if last else here[key]
            here = here[key]
        else:
            above = ".".join(map(str, location[:place]))
            what = f"a list of {len(here)}; number its entries from 0" if isinstance(here, list) else "not a section"
            raise StudyFileError(f"command line: {text}: {above} is {what}")


class _Dumper(yaml.SafeDumper):
    """Quotes text that other YAML readers would read as a number, such as 12e45."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    style = "'" if _LIKE_A_NUMBER.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(values: object) -> str:
    """Writes the values as block YAML, in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
