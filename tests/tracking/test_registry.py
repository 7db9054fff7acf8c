"""A picked student in a real MLflow registry."""

from __future__ import annotations

import shutil

import mlflow.onnx
import numpy as np
import pytest

from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError
from kdsearch.export.description import read_description
from kdsearch.files.onnx_runtime import example_feed, open_session, run_session
from kdsearch.tracking.location import Tracking
from kdsearch.tracking.recorder import Recorder
from kdsearch.tracking.registry import Registration, alias_of, register_student
from mlflow import MlflowClient
from tests.tracking.records import ended


@pytest.fixture(scope="module")
def tracking(empty_record, tmp_path_factory):
    """A store that holds a study with a trial 3."""
    found = Tracking(uri=f"sqlite:///{shutil.copy(empty_record, tmp_path_factory.mktemp('registry'))}")
    Recorder(StudyConfig(name="tiny"), found, study_id="one").trial(ended(3))
    return found


def _registration(folder, **changes):
    session = open_session(folder / "model.onnx")
    example = example_feed(session)
    description = read_description(folder)
    values = {
        "folder": folder,
        "study": "tiny",
        "study_id": "one",
        "trial": 3,
        "scores": description.scores,
        "scored_on": description.scored_on,
        "digest": description.files["model.onnx"],
        "packages": {"onnxruntime": "1.20"},
        "example": example,
    }
    return Registration(**(values | changes))


def test_registered_version_loads_predicts_and_has_an_alias(shipped, tracking):
    registration = _registration(shipped)
    assert register_student(registration, tracking) == "models:/tiny/1"
    client = MlflowClient(tracking.uri)
    version = client.get_model_version_by_alias("tiny", alias_of(registration.scores["params"]))
    assert (version.version, version.tags["kdsearch.trial"]) == (1, "3") or version.version == "1"
    assert version.description.startswith("# tiny, trial 3")
    place = client.download_artifacts(version.run_id, f"student-{registration.digest[:8]}")
    loaded = mlflow.pyfunc.load_model(place)
    assert loaded.metadata.signature.inputs.input_names() == ["image"]
    expected = run_session(open_session(shipped / "model.onnx"), registration.example, name="m")
    np.testing.assert_allclose(loaded.predict(registration.example)["logits"], expected["logits"], atol=1e-5)
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 1, 32, 32)
    assert "onnxruntime==1.20" in (shipped.parent / place / "requirements.txt").read_text(encoding="utf-8")


def test_same_model_is_registered_once(shipped, tracking):
    assert register_student(_registration(shipped), tracking) == register_student(_registration(shipped), tracking)
    assert len(MlflowClient(tracking.uri).search_model_versions("name = 'tiny'")) == 1


def test_trial_without_an_mlflow_run_is_reported(shipped, tracking):
    with pytest.raises(KdsearchError, match="MLflow has no run of trial 8 of study .*; kdsearch sync uploads it"):
        register_student(_registration(shipped, trial=8), tracking)


@pytest.mark.parametrize(("params", "alias"), [(820_000, "params-820k"), (10_846, "params-10_8k"), (999, "params-999")])
def test_alias_names_the_size(params, alias):
    assert alias_of(params) == alias
