"""Registers a picked student in MLflow's model registry."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import mlflow.onnx
import numpy as np
import numpy.typing as npt
import onnx
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from kdsearch.config.quantity import format_quantity
from kdsearch.errors import KdsearchError
from kdsearch.tracking.client import KIND, STUDY, TRIAL, reason_of, store_errors
from kdsearch.tracking.location import Tracking, open_client
from kdsearch.trials.scores import ScoredOn
from mlflow import MlflowClient

FILE_DIGEST = "kdsearch.sha256"
"""Tag: SHA-256 of the version's ``model.onnx``."""
MOST_LETTERS = 4_900
"""Maximum length of a version's description in all databases that MLflow supports."""
ARTIFACTS = "student"
"""First word of the model's folder among the trial's artifacts."""

Arrays: TypeAlias = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A picked student, described for the registry."""

    folder: Path
    """The folder that ``kdsearch pick`` wrote."""
    study: str
    study_id: str
    trial: int
    scores: dict[str, float]
    scored_on: ScoredOn
    digest: str
    """SHA-256 of ``model.onnx``."""
    packages: dict[str, str]
    """Versions of the packages that are needed to load the model."""
    example: Arrays


def register_student(registration: Registration, tracking: Tracking) -> str:
    """Registers the student under the study's name, with an alias such as ``params-820k``; returns ``models:/STUDY/3``.

    The same ``model.onnx`` is not registered twice. Raises KdsearchError if MLflow cannot be reached or has no run of
    the trial.
    """
    tracking.require()
    study, scores = registration.study, registration.scores
    tags = {STUDY: registration.study_id, TRIAL: str(registration.trial), FILE_DIGEST: registration.digest}
    tags |= {name: f"{scores[name]:.6g}" for name in ("dice", "dice_std", "params", "macs")}
    tags |= {"scored_on": registration.scored_on}
    try:
        client = open_client(tracking)
        run_id = _run_of(client, registration)
        version = _known(client, registration) or _create(client, registration, run_id)
        for key, value in tags.items():
            client.set_model_version_tag(study, version.version, key, value)
        client.set_registered_model_alias(study, alias_of(scores["params"]), version.version)
    except store_errors() as error:
        reason = reason_of(error, tracking)
        raise KdsearchError(f"tracking: the model could not be registered in {tracking.shown}: {reason}") from error
    return f"models:/{study}/{version.version}"


def alias_of(params: float) -> str:
    """Returns an alias such as ``params-820k``, without dots, which MLflow does not allow."""
    return f"params-{format_quantity(params).replace('.', '_')}"


def _run_of(client: MlflowClient, wanted: Registration) -> str:
    experiment = client.get_experiment_by_name(wanted.study)
    query = f"tags.`{KIND}` = 'trial' AND tags.`{STUDY}` = '{wanted.study_id}' AND tags.`{TRIAL}` = '{wanted.trial}'"
    runs = client.search_runs([experiment.experiment_id], query) if experiment is not None else []
    if not runs:
        raise KdsearchError(
            f"tracking: MLflow has no run of trial {wanted.trial} of study {wanted.study}; kdsearch sync uploads it"
        )
    return str(runs[0].info.run_id)


def _known(client: MlflowClient, wanted: Registration) -> ModelVersion | None:
    versions = client.search_model_versions(f"name = '{wanted.study}'")
    return next((version for version in versions if version.tags.get(FILE_DIGEST) == wanted.digest), None)


def _create(client: MlflowClient, registration: Registration, run_id: str) -> ModelVersion:
    name = registration.study
    place = f"{ARTIFACTS}-{registration.digest[:8]}"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _save(registration, Path(folder) / place)
        client.log_artifacts(run_id, str(Path(folder) / place), place)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=f"Students picked from the kdsearch study {name}.")
    card = (registration.folder / "MODEL_CARD.md").read_text(encoding="utf-8").rpartition("---\n\n#")[2]
    return client.create_model_version(name, f"runs:/{run_id}/{place}", run_id, description=_shortened(f"#{card}"))


def _shortened(card: str) -> str:
    """The first lines of the card, as many as the registry accepts."""
    if len(card) <= MOST_LETTERS:
        return card
    return card[: card.rindex("\n", 0, MOST_LETTERS)] + "\n\n… and more in MODEL_CARD.md."


def _save(registration: Registration, place: Path) -> None:
    """Saves the model in MLflow's ONNX format, with signature and example."""
    model = onnx.load(registration.folder / "model.onnx")
    mlflow.onnx.save_model(
        model,
        str(place),
        signature=ModelSignature(inputs=_schema(model.graph.input), outputs=_schema(model.graph.output)),
        input_example=registration.example,
        pip_requirements=[f"{package}=={version}" for package, version in registration.packages.items()],
        save_as_external_data=False,
    )


def _schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
    """Describes a graph's inputs or outputs to MLflow; -1 is a dimension of any size."""
    specs: list[ColSpec | TensorSpec] = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim)
        specs.append(TensorSpec(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape, value.name))
    return Schema(specs)
