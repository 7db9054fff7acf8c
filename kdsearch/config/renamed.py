"""Lists renamed settings, and updates content that has old names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdsearch.config.yaml_file import Location

KEYS = {
    "confirm.delta": "margin",
    "confirm.members": "students",
    "data.on_defect": "on_invalid",
    "data.train_without_lesion": "train_on_negatives",
    "distillation.balance": "loss_mix",
    "distillation[].on": "path",
    "references": "reference_points",
    "repeats": "replicates",
    "score_test": "report_test_scores",
    "search.batch": "ask_batch",
    "search.checkpoints": "checkpoint_url",
    "search.heartbeat_timeout": "lost_after_epochs",
    "search.inherited_epochs": "inherit_epoch_fraction",
    "search.limits.empty_share": "min_specificity",
    "search.vary_seed": "seed_per_trial",
    "student.convolution": "conv",
    "student.convolutions": "convs_per_stage",
    "student.encoder_rate": "encoder_lr_factor",
    "teacher.flip": "average_flipped",
    "teacher.members": "ensemble_by",
    "teacher.training.averaged_epochs": "ema_epochs",
    "teacher.training.encoder_rate": "encoder_lr_factor",
    "training.averaged_epochs": "ema_epochs",
}
"""New keys by the old setting's dotted name; ``[]`` is any position in a list."""
WORDS = {
    "data.on_invalid": {"stop": "error"},
    "distillation.loss": {"usual": "default"},
    "distillation.loss.choice[]": {"usual": "default"},
    "distillation.loss_mix": {"added": "add", "shared": "interpolate"},
    "search.objectives[]": {"empty_share": "specificity"},
    "search.start": {"cold": "scratch"},
}
"""New values by old ones, for each setting by its new dotted name."""
FIGURES = {"empty_share": "specificity", "flattered": "selection_bias"}
"""New names of metrics by old ones."""
ROLES = {"plain": "undistilled"}
"""New names of roles in a confirmation by old ones."""
NO_LONGER_READ = {"search.silence": "lost_after_epochs", "search.pruning.optimism": "quantile"}
"""Settings whose values have another meaning under the new name; commands that only read ignore them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """A setting or value that was renamed."""

    place: Location
    """Its location in the file."""
    old_word: str
    """Empty if the setting itself was renamed."""
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpToDate:
    """Content with current names."""

    content: Any
    renamed: tuple[Renamed, ...]
    """Everything that had an old name, in the order of the file."""
    places: Mapping[Location, Location]
    """The old location of each value, by its new one."""


def up_to_date(content: Any) -> UpToDate:
    """Returns the content of a study file, or of some of its sections, with current names.

    An old key is not renamed if the section also has the new one.
    """
    renamed: list[Renamed] = []
    places: dict[Location, Location] = {}

    def update(value: Any, name: str, was: Location, now: Location) -> Any:
        places[now] = was
        if isinstance(value, list):
            return [update(item, f"{name}[]", (*was, i), (*now, i)) for i, item in enumerate(value)]
        if isinstance(value, str) and value in WORDS.get(name, {}):
            renamed.append(Renamed(place=was, old_word=value, now=WORDS[name][value]))
            return WORDS[name][value]
        if not isinstance(value, dict):
            return value
        found = {}
        for key, inner in value.items():
            new = KEYS.get(f"{name}.{key}".lstrip("."), str(key))
            new = key if new in value else new
            if new != key:
                renamed.append(Renamed(place=(*was, key), old_word="", now=new))
            found[new] = update(inner, f"{name}.{new}".lstrip("."), (*was, key), (*now, new))
        return found

    return UpToDate(content=update(content, "", (), ()), renamed=tuple(renamed), places=places)


def figure_up_to_date(name: str) -> str:
    """The current name of a metric, such as ``dice``, or ``busi/dice`` for one source."""
    source, slash, figure = name.rpartition("/")
    return f"{source}{slash}{FIGURES.get(figure, figure)}"


def name_up_to_date(name: str) -> str:
    """The current dotted name of a setting, such as ``student.conv``, or ``distillation.0.path`` for the first term."""
    section, dot, key = name.rpartition(".")
    return f"{section}{dot}{KEYS.get(re.sub(r'[.][0-9]+[.]', '[].', name), key)}"


def recorded_up_to_date(settings: Mapping[str, str]) -> dict[str, str]:
    """MLflow's settings, which are texts by dotted name, with current names."""
    named = {name_up_to_date(name): value for name, value in settings.items()}
    return {name: WORDS.get(name, {}).get(value, value) for name, value in named.items()}


def dotted_up_to_date(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, with current names."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, key = name.split(".")
        inside = nested
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[key] = value
    now = up_to_date(nested)
    was = {place: where for where, place in now.places.items()}
    return {
        ".".join(map(str, was[tuple(name.split("."))])): _at(now.content, was[tuple(name.split("."))])
        for name in settings
    }


def _at(content: Any, place: Location) -> Any:
    for part in place:
        content = content[part]
    return content


def former_names(settings: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A section's settings with their old names, in the same order, for digests that were computed from these."""
    old = {f"{name.rpartition('.')[0]}.{new}".lstrip("."): name.rpartition(".")[2] for name, new in KEYS.items()}
    found = {}
    for key, value in settings.items():
        name = f"{section}.{key}"
        words = {new: word for word, new in WORDS.get(name, {}).items()}
        inner = former_names(value, name) if isinstance(value, dict) else value
        found[old.get(name, key)] = words.get(inner, inner) if isinstance(inner, str) else inner
    return found
