"""Recipes: all settings of one student's training, with every value chosen."""

from __future__ import annotations

import json
from typing import Any

from kdsearch.config.distillation import DistillationSpec
from kdsearch.config.networks import OneStudent, TimmSpec
from kdsearch.config.ranges import READING, Section
from kdsearch.config.renamed import former_names, up_to_date
from kdsearch.config.training import TrainingSpec, without_new
from kdsearch.files.home import expanded
from kdsearch.files.schema import Content, Schema, unchanged

FILE = "file:"
"""Prefix of the path of a weights file."""


class Inherited(Section):
    """How a student starts that inherits weights."""

    donor: int
    """The trial whose weights it inherits."""
    scratch_epochs: int
    """Number of epochs if the recipe is trained from scratch."""


class Recipe(Section):
    """All settings of a trial.

    The same recipe on the same CPU, with the same donor if it inherits weights, gives bit-identical weights.
    """

    student: OneStudent
    distillation: DistillationSpec | None
    """None for path ``none``: undistilled."""
    training: TrainingSpec
    seed: int
    """Seeds initial weights, order of images and augmentation."""
    start: Inherited | None = None
    """None for a student that is trained from scratch."""

    @property
    def path(self) -> str:
        """The distillation path's name, ``none`` if undistilled."""
        return self.distillation.path if self.distillation else "none"

    @property
    def from_scratch(self) -> Recipe:
        """The same recipe trained from scratch, for all its epochs."""
        if self.start is None:
            return self
        training = self.training.model_copy(update={"epochs": self.start.scratch_epochs})
        return self.model_copy(update={"training": training, "start": None})

    def settings(self) -> dict[str, str]:
        """Returns every chosen value as text, by its dotted name in the study file; leaves out unused settings."""
        found: dict[str, str] = {"distillation.path": self.path}
        values = self.model_dump()
        distillation = values.pop("distillation")
        _flatten({"student": values.pop("student")}, "", found)
        if distillation is not None:
            _flatten({"distillation": _as_in_a_study_file(distillation)}, "", found)
        _flatten(values, "", found)
        return found


def _fewer_settings(content: Content) -> Content:
    """Upgrades schema 0, which had one family of students with doubling channels and, at first, no balance."""
    student, distillation = content.get("student"), content.get("distillation")
    found = dict(content)
    if isinstance(student, dict):
        found["student"] = {"family": "unet", "growth": 2.0, **student}
    if isinstance(distillation, dict):
        found["distillation"] = {"balance": "shared", **distillation}
    return found


def _one_term(content: Content) -> Content:
    """Upgrades schema 1, which had one distillation term instead of a list."""
    old = content.get("distillation")
    if not isinstance(old, dict) or not {"path", "loss", "weight", "teacher_view", "balance"} <= old.keys():
        return content  # None, or content that no release has written
    term = {"on": old["path"], **{key: old[key] for key in ("loss", "weight", "teacher_view")}}
    if old["loss"] == "kld":
        term["temperature"] = old.get("temperature")
    return {**content, "distillation": {"terms": [term], "balance": old["balance"]}}


def from_anywhere(recipe: Recipe, weights: object) -> Recipe:
    """Makes the path of a weights file absolute, because a worker may run in another folder.

    ``weights`` is the study's current setting, which replaces the recipe's if the file has moved.
    """
    student = recipe.student
    if not isinstance(student, TimmSpec) or not student.weights.startswith(FILE):
        return recipe
    now = str(weights) if str(weights).startswith(FILE) else student.weights
    path = expanded(now.removeprefix(FILE), field="student.weights").absolute()
    return recipe.model_copy(update={"student": student.model_copy(update={"weights": f"{FILE}{path}"})})


def _renamed(content: Content) -> Content:
    """Schema 3 had the names of before."""
    sections = {key: content[key] for key in ("student", "training") if isinstance(content.get(key), dict)}
    found = {**content, **up_to_date(sections).content}
    distillation, start = content.get("distillation"), content.get("start")
    if isinstance(distillation, dict) and "terms" in distillation:
        terms = up_to_date({"distillation": distillation["terms"]}).content
        mix = up_to_date({"distillation": {key: distillation[key] for key in distillation if key != "terms"}}).content
        found["distillation"] = {"terms": terms["distillation"], **mix["distillation"]}
    if isinstance(start, dict):
        found["start"] = {"scratch_epochs" if key == "cold_epochs" else key: value for key, value in start.items()}
    return found


SCHEMA = Schema(what="recipe", upgrades=(_fewer_settings, _one_term, unchanged, _renamed))
"""Schema 2 had no ``start``."""


def dump_for_digest(recipe: Recipe) -> str:
    """As schema 3 stored it: digests of recipes are made of that, so that checkpoints of before are still found."""
    content = recipe.model_dump(mode="json")
    content["training"] = without_new(content["training"])
    for section in ("student", "training"):
        content[section] = former_names(content[section], section)
    if (distillation := content["distillation"]) is not None:
        terms = [
            {"on" if key == "path" else key: value for key, value in term.items()} for term in distillation["terms"]
        ]
        balance = former_names({"loss_mix": distillation["loss_mix"]}, "distillation")
        content["distillation"] = {"terms": terms, **balance}
    if (start := content["start"]) is not None:
        content["start"] = {"donor": start["donor"], "cold_epochs": start["scratch_epochs"]}
    return json.dumps({"schema": 3, **content})


def dump_recipe(recipe: Recipe) -> str:
    """Writes a recipe as JSON."""
    content = recipe.model_dump(mode="json")
    content["training"] = without_new(content["training"])  # so that older releases read it
    return json.dumps(SCHEMA.stamped(content))


def read_recipe(text: str) -> Recipe:
    """Reads a stored recipe; raises KdsearchError if a newer release wrote it."""
    return Recipe.model_validate_json(json.dumps(SCHEMA.upgraded(json.loads(text))), context=READING)


def _as_in_a_study_file(distillation: dict[str, Any]) -> dict[str, object]:
    """Names one term as in the short form; numbers several terms."""
    terms = distillation["terms"]
    if len(terms) > 1:
        return {str(place): term for place, term in enumerate(terms)}
    return {key: value for key, value in terms[0].items() if key != "path"} | {"loss_mix": distillation["loss_mix"]}


def _flatten(values: dict[str, object], prefix: str, into: dict[str, str]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{key}.", into)
        elif value is not None:
            into[f"{prefix}{key}"] = f"{value:.6g}" if isinstance(value, float) else str(value)
