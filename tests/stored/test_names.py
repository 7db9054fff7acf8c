"""What the last commit before the settings were renamed stored is read, found in caches and continued by today's code."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from kdsearch.campaign.preparation import open_materials
from kdsearch.campaign.wanted_teachers import WantedTeacher
from kdsearch.cli.main import main
from kdsearch.config.load import load_study, read_study
from kdsearch.config.study import StudyConfig
from kdsearch.confirm.plan import dump_plan, read_plan
from kdsearch.confirm.store import sealed_plans
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.errors import StudyFileError
from kdsearch.export.description import read_description
from kdsearch.export.seen import read_seen
from kdsearch.files.home import storage_url
from kdsearch.search.store import open_store
from kdsearch.trials.recipe import Inherited, dump_for_digest, read_recipe
from kdsearch.trials.record import students_of

HERE = Path(__file__).parent
HOME = Path("home")


@pytest.fixture(params=["names-1", "names-2"])
def stored(request, tmp_path, monkeypatch) -> StudyConfig:
    """One of the studies in the current folder, as its user would find it."""
    return _unpack(request.param, tmp_path, monkeypatch)


@pytest.fixture
def stored_terms(tmp_path, monkeypatch) -> StudyConfig:
    """The study with a list of terms, which was confirmed, tested and recorded."""
    return _unpack("names-1", tmp_path, monkeypatch)


def _unpack(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> StudyConfig:
    with tarfile.open(HERE / f"{name}.tar.xz") as packed:
        packed.extractall(place, filter="data")
    shutil.copytree(HERE / "unversioned" / "images", place / "images")
    monkeypatch.chdir(place)
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    monkeypatch.setenv("STORED_IMAGES", "images")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    return read_study(Path("study.yaml"))


@pytest.mark.usefixtures("stored")
def test_training_asks_for_the_new_names():
    with pytest.raises(StudyFileError, match="student.convolutions: is now called convs_per_stage"):
        load_study(Path("study.yaml"))


@pytest.mark.usefixtures("stored")
def test_front_has_not_changed(capsys):
    was = json.loads(Path("front.json").read_text(encoding="utf-8"))
    capsys.readouterr()
    assert main(["front", "study.yaml", "--json"]) == 0
    now = json.loads(capsys.readouterr().out)
    assert [row["trial"] for row in now] == [row["trial"] for row in was]
    for one, other in zip(now, was, strict=True):
        assert one["standing"] == other["standing"]
        renamed = {"empty_share": "specificity"}  # old name
        assert one["scores"] == {renamed.get(name, name): value for name, value in other["scores"].items()}


def test_study_is_continued_with_the_sampler_s_experience(stored_terms):
    more = stored_terms.model_copy(update={"search": stored_terms.search.model_copy(update={"trials": 8})})
    store = open_store(more, HOME, create=False)
    students = students_of(store.records())
    proposal = store.ask(donors=students)
    assert proposal.number == len(students) == 6
    database = optuna.load_study(study_name="stored", storage=storage_url(HOME, "stored", None))
    assert {"student.conv", "training.ema_epochs"} <= database.trials[6].params.keys()
    assert {"student.convolution", "training.averaged_epochs"} <= database.trials[5].params.keys()  # old name


def test_data_and_teacher_are_found_where_they_were(stored):
    folders = {path.name for path in (HOME / "data").iterdir() if path.is_dir()}
    teachers = {path.name for path in (HOME / "teachers").iterdir()}
    store = open_store(stored, HOME, create=False)
    materials = open_materials(stored, HOME, data=store.data(), teacher_id=store.teacher_id)
    assert {path.name for path in (HOME / "data").iterdir() if path.is_dir()} == folders
    wanted = WantedTeacher(recipe=TeacherRecipe.of(stored), images=materials)
    parts = [wanted, *wanted.members()]
    assert len(parts) == 3
    assert {one.folder(HOME).name for one in parts} <= teachers
    assert wanted.folder(HOME).name == store.teacher_id == materials.trained_teacher.id
    assert all(one.cached(HOME) is not None for one in parts)


def test_sealed_plans_are_read_under_their_digests(stored):
    store = open_store(stored, HOME, create=False)
    url = storage_url(HOME, "stored", None)
    (sealed,) = sealed_plans(url, "stored", study_id=store.id)
    text = optuna.load_study(study_name=sealed.name, storage=url).user_attrs["plan"]
    assert read_plan(text).digest == sealed.receipt["digest"]
    assert sealed.plan.tests_the_same(read_plan(dump_plan(sealed.plan)))
    assert sealed.complete()
    recipes = {student.number: student.recipe for student in students_of(store.records())}
    for arm in sealed.plan.members:
        assert arm.recipe.student == recipes[arm.trial].student
        assert arm.recipe.distillation == recipes[arm.trial].distillation
    assert sealed.plan.settings == stored.confirm


def test_confirmation_and_test_are_shown(stored_terms, capsys):
    Path("study.yaml").write_text(NEW_TERMS, encoding="utf-8")
    assert load_study(Path("study.yaml")) == stored_terms
    assert main(["confirm", "study.yaml", "--json"]) == 0, capsys.readouterr()
    found = json.loads(capsys.readouterr().out)
    assert found["margin"] == 0.05
    assert all("selection_bias" in arm for arm in found["arms"])


NEW_TERMS = """\
name: stored
seed: 3
data:
  sources: [{reader: folder, folder: $STORED_IMAGES}]
  size: 32
  split: {validation: 0.25}
  on_invalid: skip
  train_on_negatives: true
teacher:
  architecture: linknet
  encoder: test_efficientnet
  encoder_depth: 3
  weights: none
  ensemble: 2
  ensemble_by: seeds
  average_flipped: true
  training: {epochs: 2, learning_rate: 5e-3, ema_epochs: 1.5, encoder_lr_factor: 0.5}
student:
  width: {choice: [3, 4, 6]}
  depth: 2
  convs_per_stage: {choice: [1, 2]}
  conv: {choice: [standard, separable]}
distillation:
  - {path: logits, loss: mse, weight: {choice: [0.5, 1.0]}}
  - {path: attention, loss: mse}
training: {epochs: 8, learning_rate: 2e-2, ema_epochs: {choice: [0.5, 1.0]}}
search:
  sampler: tpe
  trials: 6
  startup_trials: 3
  objectives: [dice, params, specificity]
  limits: {params: 10k}
  start: inherit
  inherit_epoch_fraction: 0.5
  seed_per_trial: true
  deterministic: true
  ask_batch: 2
  lost_after_epochs: 20
  workers: 1
  checkpoint_url: checkpoints
confirm: {students: 2, folds: 2, margin: 0.05}
"""


def test_digests_of_recipes_are_what_they_were(stored):
    trials = optuna.load_study(study_name=stored.name, storage=storage_url(HOME, "stored", None)).trials
    assert len(trials) >= 6
    for trial in trials:
        text = trial.user_attrs["recipe"]
        assert dump_for_digest(read_recipe(text)) == text


@pytest.mark.usefixtures("stored_terms")
def test_roles_and_inherited_weights_have_new_names():
    url = storage_url(HOME, "stored", None)
    plan = json.loads(optuna.load_study(study_name="stored.confirm-1", storage=url).user_attrs["plan"])
    plan["arms"][0]["role"] = "plain"  # old name
    plan["arms"][0]["recipe"]["start"] = {"donor": 2, "cold_epochs": 8}  # old name
    arm = read_plan(json.dumps(plan)).arms[0]
    assert arm.role == "undistilled"
    assert arm.recipe.start == Inherited(donor=2, scratch_epochs=8)


def test_runs_get_the_new_names(stored_terms, capsys):
    assert main(["sync", "study.yaml"]) == 0, capsys.readouterr()
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    (experiment,) = (one for one in client.search_experiments() if one.name == stored_terms.name)
    runs = {kind: [] for kind in ("trial", "teacher", "confirmed", "repeat")}
    for run in client.search_runs([experiment.experiment_id], max_results=500):
        runs.setdefault(run.data.tags["kdsearch.kind"], []).append(run.data)
    assert len(runs["trial"]) == 6
    for run in runs["trial"]:
        assert run.params["student.conv"] == run.params["student.convolution"]  # old name
        assert run.params["distillation.0.path"] == "logits"
        assert run.params["distillation.1.path"] == "attention"
        assert run.metrics["specificity"] == run.metrics["empty_share"]  # old name
    for run in runs["teacher"]:
        assert (run.params["ensemble_by"], run.params["training.ema_epochs"]) == ("seeds", "1.5")
    assert any("selection_bias" in run.metrics for run in runs["confirmed"])


@pytest.mark.usefixtures("stored")
def test_picked_student_is_read():
    description = read_description(Path("picked"))
    assert "specificity" in description.scores
    seen = read_seen(Path("picked"), description)
    assert (len(seen.learnt.digests), len(seen.locked.digests)) in ((41, 7), (36, 7))
