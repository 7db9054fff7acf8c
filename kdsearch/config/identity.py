"""What must not change once a study has trials: the settings that differ from their defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kdsearch.config.identity_schema_0 import DEFAULTS, SOURCE_DEFAULTS
from kdsearch.config.study import StudyConfig
from kdsearch.files.schema import Content, Schema

SECTIONS = {"seed", "data", "teacher", "student", "distillation", "training"}
SEARCHED = {"objectives", "limits", "vary_seed", "start", "inherited_epochs"}
PLACES = {
    "teacher.file": "",
    "teacher.folder": "",
    "teacher.checkpoint": "",
    "teacher.weights": "file:",
    "student.weights": "file:",
}
"""Settings that may name a place, and how those values begin that do."""
RANGES = {"choice", "int", "float"}


def identity_of(study: StudyConfig) -> dict[str, str]:
    """The settings as JSON by dotted name; a default is left out, as is what changes no network.

    Data, teachers and weights count by content, not by the place of their files.

    So a setting that a later release adds, with a default, changes nothing. Whoever changes a default adds a step to
    ``SCHEMA`` that writes the old one out.
    """
    values = study.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=SECTIONS)
    values["search"] = study.search.model_dump(mode="json", exclude_defaults=True, include=SEARCHED)
    data = values.get("data", {})
    for source in (*data.get("sources", ()), *data.get("unlabelled", ())):
        source.pop("folder", None)
        source.pop("spacing_mm", None)
    data.pop("tolerance_mm", None)
    return _without_places(_flat(values))


def dump_identity(study: StudyConfig) -> str:
    """As it is stored."""
    return json.dumps(SCHEMA.stamped(identity_of(study)))


def read_identity(text: str) -> dict[str, str]:
    """A stored identity; raises KdsearchError where it cannot be read."""
    return SCHEMA.upgraded(json.loads(text))


def changed_settings(stored: str | None, study: StudyConfig) -> str:
    """The settings that differ from a stored identity, a line each; empty if none does, or nothing was stored."""
    if stored is None:
        return ""
    known, now = read_identity(stored), identity_of(study)
    return "\n".join(
        f"  {key}: was {known.get(key, 'the default')}, is {now.get(key, 'the default')}"
        for key in sorted(known | now)
        if known.get(key) != now.get(key)
    )


def _without_places(settings: Mapping[str, str]) -> dict[str, str]:
    """That a file is named stays, and where it lies does not; what it holds is part of the teacher's id, or bound."""
    found = dict(settings)
    for name, kind in PLACES.items():
        if json.loads(found.get(name, "null")) is not None and str(json.loads(found[name])).startswith(kind):
            found[name] = json.dumps(kind or "a file")
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and not RANGES & value.keys():
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(value, sort_keys=True)
    return found


def _without_defaults(content: Content) -> Content:
    """Schema 0 held every setting of its release, ranges by the names of their fields."""
    whole = _flat({dotted: _ranges_by_alias(json.loads(text)) for dotted, text in content.items()})
    found = {name: value for name, value in whole.items() if json.loads(value) != DEFAULTS.get(name, ...)}
    sources = [_source_without_defaults(source) for source in json.loads(found.pop("data.sources", "[]"))]
    phantom_alone = sources == [{"reader": "phantom"}]
    return found if phantom_alone else found | {"data.sources": json.dumps(sources, sort_keys=True)}


def _source_without_defaults(source: dict[str, Any]) -> dict[str, Any]:
    usual = SOURCE_DEFAULTS.get(source["reader"], {})
    return {key: value for key, value in source.items() if value != usual.get(key)}


def _ranges_by_alias(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "bounds" not in value:
        return {key: _ranges_by_alias(part) for key, part in value.items()}
    kind = "float" if any(isinstance(bound, float) for bound in value["bounds"]) else "int"
    usual = {"log": False, "step": 1 if kind == "int" else None}
    kept = {key: part for key, part in value.items() if key != "bounds" and part != usual.get(key)}
    return {kind: value["bounds"], **kept}


def _weight_was_half(content: Content) -> Content:
    """Of a study that distils, the weight was 0.5 by default; since schema 2 it is 1."""
    path = json.loads(content.get("distillation.path", '"logits"'))
    found = {"distillation.weight": "0.5"} | content if path != "none" else dict(content)
    return {key: value for key, value in found.items() if (key, value) != ("distillation.weight", "1.0")}


SCHEMA = Schema(what="the study's settings", upgrades=(_without_defaults, _weight_was_half, _without_places))
