"""Writes YAML that reads back as what it was."""

from __future__ import annotations

import re

import yaml

_LIKE_A_NUMBER = re.compile(r"[-+]?[0-9.][0-9_.eE+-]*")


class _Dumper(yaml.SafeDumper):
    """Quotes text that a reader with another idea of numbers than PyYAML's would take for one, such as 12e45."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    style = "'" if _LIKE_A_NUMBER.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(values: object) -> str:
    """The values as block YAML, in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
