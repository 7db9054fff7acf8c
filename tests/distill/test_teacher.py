"""A teacher is trained once, stored whole, and its maps match the training images."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from kdsearch.config.load import load_study
from kdsearch.config.task import square
from kdsearch.data.cache import load_dataset
from kdsearch.data.splits import split
from kdsearch.distill.batches import training_data
from kdsearch.distill.losses import supervised
from kdsearch.distill.result import Trained, TrainingFailed
from kdsearch.distill.teacher import TeacherRecipe, train_teacher
from kdsearch.distill.teacher_folder import LEFT_OUT, open_teacher, recipe_in, store_teacher, teacher_folder
from kdsearch.errors import TeacherError
from kdsearch.models.contract import maps_at, normalize
from tests.distill.teachers import teach
from tests.front.students import scores
from tests.search.setups import finish
from tests.tiny import TINY


def _prepare(study, home):
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_on_negatives=False)
    return training_data(dataset, splits, torch.device("cpu")), teacher_folder(
        TeacherRecipe.of(study), splits.fingerprint, home
    )


@pytest.fixture(scope="module")
def home(tiny_home, tmp_path_factory):
    """A home with the trained teacher of ``tiny``."""
    return shutil.copytree(tiny_home, tmp_path_factory.mktemp("teacher") / "home")


@pytest.fixture(params=["trained", "checkpoint"])
def made(request, tiny, study_file, home):
    """Every way to obtain a teacher, with its images."""
    data, folder = _prepare(tiny, home)
    teacher = teach(tiny, data, folder)
    if request.param == "checkpoint":
        study = load_study(study_file(_with_checkpoint(folder / "teacher.safetensors")))
        teacher = teach(study, data, _prepare(study, home)[1])
    return teacher, data


@pytest.mark.parametrize("travelled", [False, True])
def test_every_teacher_gives_consistent_logits_and_feature_maps(made, travelled):
    """The contract for teachers of every origin, on every machine."""
    teacher, data = made
    here = teacher.packed() if travelled else teacher
    network = here.load(torch.device("cpu"))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    cached = here.logits(torch.device("cpu"))
    assert (cached.dtype, cached.shape) == (torch.float16, (len(data.train), 1, 32, 32))
    with torch.no_grad():
        outputs = network.outputs(normalize(data.train.pixels))
        torch.testing.assert_close(cached.float(), outputs.logits, atol=1e-2, rtol=1e-2)
        hidden = network.features(normalize(data.train.pixels))
    assert all(torch.equal(a, b) for a, b in zip(outputs.features, hidden, strict=True))
    assert [32 // maps.shape[-1] for maps in hidden] == [1, 2, 4, 8], "each stride, the finest first"
    assert maps_at(hidden, 4, side=32) is hidden[2]
    assert maps_at(hidden, None, side=32) is hidden[-1]


def test_teacher_is_stored_with_scores_and_curve(made):
    teacher, _ = made
    opened = open_teacher(teacher.recipe, teacher.folder)
    assert opened == teacher
    assert opened.scores.params > 100_000
    assert opened.scores.per_image is not None
    assert len(opened.curve) == (0 if teacher.recipe.config.checkpoint else 1)
    assert not list(teacher.folder.parent.glob(".partial-*"))
    assert open_teacher(teacher.recipe, teacher.folder.with_name("absent")) is None


def test_teacher_folder_depends_on_settings_split_and_seed(study_file, tmp_path):
    def folder(text, fingerprint="a"):
        return teacher_folder(TeacherRecipe.of(load_study(study_file(TINY + text))), fingerprint, tmp_path)

    assert folder("") == folder("device: cpu\n")
    assert len({folder(""), folder("seed: 1\n"), folder("", "b")}) == 3
    changed = load_study(study_file(TINY.replace("weights: none", "weights: none\n  encoder: resnet18")))
    assert teacher_folder(TeacherRecipe.of(changed), "a", tmp_path) != folder("")


def test_teacher_that_cannot_be_trained_says_what_to_change(study_file, home):
    text = TINY.replace("{epochs: 1}", "{epochs: 1, learning_rate: 1e30, optimizer: sgd, schedule: constant}", 1)
    study = load_study(study_file(text))
    data, _ = _prepare(study, home)
    with pytest.raises(TrainingFailed, match="the loss became .*; lower teacher.training.learning_rate"):
        finish(train_teacher(TeacherRecipe.of(study), data))


def _with_checkpoint(path):
    return TINY.replace("  weights: none\n  training: {epochs: 1}", f"  checkpoint: {path}", 1)


def test_checkpoint_is_used_without_training(tiny, study_file, home):
    data, folder = _prepare(tiny, home)
    first = teach(tiny, data, folder)
    checkpoint = first.folder / "teacher.safetensors"
    study = load_study(study_file(_with_checkpoint(checkpoint)))
    second_folder = _prepare(study, home)[1]
    assert second_folder != folder
    second = teach(study, data, second_folder)
    assert second.curve == ()
    assert second.scores.overlap == first.scores.overlap


def test_checkpoint_of_another_network_is_refused(tiny, study_file, home, tmp_path):
    data, folder = _prepare(tiny, home)
    first = teach(tiny, data, folder)
    text = _with_checkpoint(first.folder / "teacher.safetensors")
    study = load_study(study_file(text.replace("encoder_depth: 3", "encoder_depth: 4")))
    with pytest.raises(TeacherError, match="does not match unet on tf_efficientnet_lite0 with depth 4"):
        teach(study, data, tmp_path / "other")


@pytest.mark.parametrize("wanted", [True, False])
def test_negative_images_train_the_teacher_if_the_study_says_so(tiny, tiny_home, wanted):
    dataset = load_dataset(tiny.data, tiny_home)
    splits = split(dataset, tiny.data.split, train_on_negatives=wanted)
    data = training_data(dataset, splits, torch.device("cpu"))
    empty = ~(data.train.masks > 0).flatten(1).any(dim=1)
    assert bool(empty.any()) == wanted


def test_predicting_a_lesion_on_a_negative_image_raises_the_loss():
    masks = torch.zeros(1, 8, 8, dtype=torch.long)
    marked, blank = torch.full((1, 1, 8, 8), 2.0), torch.full((1, 1, 8, 8), -6.0)
    assert supervised(marked, masks, "dice_cross_entropy") > supervised(blank, masks, "dice_cross_entropy") + 1


def test_teacher_folder_name_is_stable_across_releases(study_file):
    """A new setting stays out of the name while it has its default; changing a default changes the name."""
    study = load_study(study_file("name: a\n"))
    assert teacher_folder(TeacherRecipe.of(study), "split", Path()).name == "b6cd07723ada28fd"


@pytest.fixture
def stored(tiny, tmp_path):
    """A teacher's folder after training."""
    trained = Trained(
        scores=scores(dice=0.7, params=10, macs=20),
        weights=save({"weight": torch.zeros(1000)}),
        logits=np.zeros((4, 1, 32, 32), np.float16),
    )
    recipe, folder = TeacherRecipe.of(tiny), tmp_path / "teacher"
    store_teacher(trained, recipe=recipe, curve=(), folder=folder)
    return recipe, folder


@pytest.mark.parametrize("name", ["logits.npy", "teacher.safetensors", "scores.json", "curve.json", "teacher.yaml"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "deleted"])
def test_damaged_teacher_is_ignored_with_one_warning(stored, name, damage, caplog):
    recipe, folder = stored
    assert open_teacher(recipe, folder) is not None
    path = folder / name
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if damage == "cut" else 0])
    if (name, damage) in (("teacher.yaml", "cut"), ("curve.json", "cut")):
        path.write_bytes(b"\x00\xff{[")
    assert open_teacher(recipe, folder) is None
    if name != "scores.json" or damage != "deleted":  # without scores, its training never finished
        (line,) = (record.getMessage() for record in caplog.records)
        assert line.startswith(f"the cached teacher {folder} is damaged (")
        assert line.endswith("; kdsearch run trains it again")


@pytest.mark.parametrize("damage", ["cut", "emptied", "deleted", "short"])
def test_ensemble_with_a_damaged_list_of_left_out_members_is_ignored(stored, damage):
    """Without them, students would be taught by members that were trained on the image."""
    recipe, folder = stored
    ensemble = dataclasses.replace(recipe, config=recipe.config.model_copy(update={"ensemble": 2}))
    path = folder / LEFT_OUT
    np.save(path, np.zeros(4, np.int16))
    assert open_teacher(ensemble, folder) is not None
    if damage == "deleted":
        path.unlink()
    elif damage == "short":
        np.save(path, np.zeros(3, np.int16))
    else:
        path.write_bytes(path.read_bytes()[: 100 if damage == "cut" else 0])
    assert open_teacher(ensemble, folder) is None


@pytest.mark.parametrize("content", [b"", b"teacher: [", b"schema: 1\n", b"- a list\n", b"teacher: {}\n"])
def test_damaged_teacher_settings_give_no_recipe(stored, content):
    _, folder = stored
    assert recipe_in(folder, square(32)) is not None
    (folder / "teacher.yaml").write_bytes(content)
    assert recipe_in(folder, square(32)) is None
