"""What must not change once a study has trials: the settings that differ from their defaults."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from kdsearch.config.study import StudyConfig
from kdsearch.errors import SearchError
from kdsearch.files.schema import Content, Schema

SECTIONS = {"seed", "data", "teacher", "student", "distillation", "training"}
SEARCHED = {"objectives", "limits", "vary_seed"}
RANGES = {"choice", "int", "float"}


def identity_of(study: StudyConfig) -> dict[str, str]:
    """The settings as JSON by dotted name; data count by content, not by folder, and a default is left out.

    So a setting that a later release adds, with a default, changes nothing.
    """
    values = study.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=SECTIONS)
    values["search"] = study.search.model_dump(mode="json", exclude_defaults=True, include=SEARCHED)
    for source in values.get("data", {}).get("sources", ()):
        source.pop("folder", None)
    return _flat(values)


def dump_identity(study: StudyConfig) -> str:
    """As it is stored."""
    return json.dumps(SCHEMA.stamped(identity_of(study)))


def read_identity(text: str) -> dict[str, str]:
    """A stored identity; raises KdsearchError where it cannot be read."""
    return SCHEMA.upgraded(json.loads(text))


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
    values: dict[str, Any] = {"name": "older"}
    for dotted, text in content.items():
        section, _, key = dotted.partition(".")
        value = _ranges_by_alias(json.loads(text))
        if key:
            values.setdefault(section, {})[key] = value
        else:
            values[section] = value
    for source in values["data"]["sources"]:
        if source["reader"] != "phantom":
            source["folder"] = "unknown"
    if values["teacher"].get("checkpoint") is not None:
        for idle in ("training", "weights"):
            del values["teacher"][idle]
    try:
        return identity_of(StudyConfig.model_validate_json(json.dumps(values)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SearchError(
            f"the study was made by an older release with settings that this one does not have: {where}: "
            f"{first['msg']}; give the study another name, or install that release"
        ) from error


def _ranges_by_alias(value: Any) -> Any:
    if isinstance(value, list):
        return [_ranges_by_alias(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "bounds" in value:
        kind = "float" if any(isinstance(bound, float) for bound in value["bounds"]) else "int"
        return {kind if key == "bounds" else key: part for key, part in value.items()}
    return {key: _ranges_by_alias(part) for key, part in value.items()}


SCHEMA = Schema(what="the study's settings", upgrades=(_without_defaults,))
