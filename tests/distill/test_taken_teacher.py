"""Given teachers work like trained ones, on any worker."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load

from kdsearch.campaign.preparation import open_materials, read_images, require_same_teacher
from kdsearch.config.load import load_study
from kdsearch.config.networks import UNetSpec
from kdsearch.config.ranges import values_of
from kdsearch.config.task import square
from kdsearch.data.cache import load_dataset
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.student import Trainer
from kdsearch.errors import DataError, KdsearchError, StudyFileError, TeacherError
from kdsearch.export.onnx_graph import to_onnx
from kdsearch.models.students import build_student
from kdsearch.search.recipes import choose
from kdsearch.search.store import open_store
from tests.search.setups import finish, make_materials
from tests.tiny import TINY

CPU = torch.device("cpu")
OLD = "teacher:\n  encoder_depth: 3\n  weights: none\n  training: {epochs: 1}\n"
GIVEN, FILE = "{kind: predictions, folder: p}", "{kind: onnx, file: p}"
MORE = "  unlabelled: [{reader: phantom, name: more, seed: 5, images: 12}]\n"


@pytest.fixture
def home(tiny_home, tmp_path):
    """A home with the study's images."""
    shutil.copytree(tiny_home / "data", tmp_path / "home" / "data")
    return tmp_path / "home"


@pytest.fixture
def study(study_file, tmp_path):
    """A study whose teacher is a folder of predictions."""
    teacher = f"teacher: {{kind: predictions, folder: {tmp_path / 'maps'}, params: 31M}}\n"
    return load_study(study_file(TINY.replace(OLD, teacher)))


@pytest.fixture
def maps(study, home, tmp_path):
    """Predictions for every image, made from its mask; returns the folder."""
    folder = tmp_path / "maps"
    folder.mkdir()
    dataset = load_dataset(study.data, home)
    for info, mask in zip(dataset.infos, dataset.masks, strict=True):
        np.save(folder / f"{info.id.partition('/')[2]}.npy", 0.05 + 0.9 * (np.asarray(mask) > 0).astype(np.float32))
    return folder


def _distilled(materials, study):
    recipe = choose(study, lambda name, value: "logits" if name.endswith("path") else values_of(value)[0], seed=0)
    return finish(Trainer(materials.training_data(CPU), materials.teacher).distil(recipe))[1].weights


def test_predictions_are_scored_and_distil_a_student(study, home, maps):  # noqa: ARG001 - made here
    materials = make_materials(study, home)
    teacher = materials.teacher
    assert teacher.scores.dice == pytest.approx(1.0)
    assert (teacher.scores.params, teacher.scores.macs) == (31_000_000, 0)
    assert teacher.scores.headline() == "Dice 100.0 %, 31M params"
    assert dataclasses.replace(teacher.scores, params=0).headline() == "Dice 100.0 %, of unknown size"
    lesion = torch.from_numpy(np.asarray(materials.dataset.masks)[list(materials.splits.train)] > 0)
    assert torch.equal(teacher.logits(CPU)[:, 0] > 0, lesion)
    plain = finish(
        Trainer(materials.training_data(CPU), None).distil(choose(study, lambda _, value: values_of(value)[0], seed=0))
    )
    assert load(_distilled(materials, study)).keys() == load(plain[1].weights).keys()
    assert _distilled(materials, study) == _distilled(materials.packed(), study) != plain[1].weights


def test_worker_opens_predictions_without_their_folder(study, home, maps):
    place = make_materials(study, home).place(home)
    for path in maps.iterdir():
        path.unlink()
    maps.rmdir()
    opened = place.open()
    gray = opened.training_data(CPU).validation.pixels
    assert predict_logits(opened.teacher.load(CPU), gray).shape == (len(gray), 1, 32, 32)


def test_missing_predictions_are_reported_and_no_teacher_is_stored(study, home, maps):
    gone = sorted(maps.iterdir())[:7]
    for path in gone:
        path.unlink()
    with pytest.raises(DataError, match="has no prediction for . of .. training and validation images: phantom/"):
        make_materials(study, home)
    assert not [path for path in (home / "teachers").glob("*") if path.is_dir()]


def test_changed_predictions_make_another_teacher(study, home, maps):
    before = make_materials(study, home).teacher.id
    images = read_images(study, home)
    require_same_teacher(study, images, home, teacher_id=before)
    np.save(next(maps.iterdir()), np.zeros((32, 32), np.float32))
    assert make_materials(study, home).teacher.id != before
    assert open_materials(study, home, data=None, teacher_id=before).teacher.id == before, (
        "its trials were distilled from this teacher"
    )
    with pytest.raises(
        KdsearchError, match=r"teacher: .*maps has changed since its trials were trained \(.*restore it"
    ):
        require_same_teacher(study, images, home, teacher_id=before)


def test_moved_predictions_are_still_the_same_teacher(study, home, maps, study_file, tmp_path):
    before = make_materials(study, home).teacher.id
    open_store(study, home, create=True).ask()
    teacher = f"teacher: {{kind: predictions, folder: {tmp_path / 'moved'}, params: 31M}}\n"
    moved = load_study(study_file(TINY.replace(OLD, teacher)))
    maps.rename(tmp_path / "moved")
    assert len(open_store(moved, home, create=False).records()) == 1
    require_same_teacher(moved, read_images(moved, home), home, teacher_id=before)
    assert make_materials(moved, home).teacher.id == before


def test_unlabelled_images_need_predictions_too(home, maps, study_file):
    text = TINY.replace(OLD, f"teacher: {{kind: predictions, folder: {maps}}}\n").replace(
        "  size: 32\n", f"  size: 32\n{MORE}"
    )
    more = load_study(study_file(text))
    (maps / "phantom").mkdir()
    for path in maps.glob("*.npy"):  # both sources have images of these names
        path.rename(maps / "phantom" / path.name)
    with pytest.raises(DataError, match="has no prediction for .* unlabelled images: more/"):
        make_materials(more, home)
    part = read_images(more, home).unlabelled
    assert part is not None
    for place in part.positions:
        name = part.whole.infos[place].id
        (maps / name).parent.mkdir(exist_ok=True)
        np.save(maps / f"{name}.npy", np.full((32, 32), 0.3, np.float32))
    materials = make_materials(more, home)
    assert _distilled(materials, more) != _distilled(dataclasses.replace(materials, unlabelled=None), more)


def test_onnx_teacher_equals_the_network_it_was_exported_from(study_file, tmp_path, home):
    network = build_student(UNetSpec(width=4, depth=2)).eval()
    (tmp_path / "t.onnx").write_bytes(to_onnx(network, square(32)))
    teacher = f"teacher: {{kind: onnx, file: {tmp_path / 't.onnx'}, mean: 0.449, std: 0.226}}\n"
    study = load_study(study_file(TINY.replace(OLD, teacher)))
    materials = make_materials(study, home)
    (tmp_path / "t.onnx").unlink()
    gray = materials.training_data(CPU).train.pixels
    for found in (materials.teacher.logits(CPU).float(), predict_logits(materials.teacher.load(CPU), gray)):
        torch.testing.assert_close(found, predict_logits(network, gray), atol=5e-3, rtol=1e-3)
    assert materials.teacher.scores.params >= sum(p.numel() for p in network.parameters()) * 0.9
    assert _distilled(materials, study) == _distilled(materials.packed(), study)


def test_onnx_teacher_that_outputs_probabilities_as_logits_is_refused(study_file, tmp_path, home):
    class Sure(torch.nn.Module):
        def forward(self, image):
            return image.sigmoid()

    torch.onnx.export(
        Sure().eval(), (torch.zeros(2, 1, 32, 32),), tmp_path / "t.onnx", dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    study = load_study(study_file(TINY.replace(OLD, f"teacher: {{kind: onnx, file: {tmp_path / 't.onnx'}}}\n")))
    with pytest.raises(TeacherError, match="are between 0 and 1, .*; write teacher.output: probabilities"):
        make_materials(study, home)


@pytest.mark.parametrize(
    ("teacher", "distillation", "message"),
    [
        (GIVEN, "{path: attention}", "no feature maps, which path attention compares; write distillation.path: logits"),
        (FILE, "{path: {choice: [none, regressor]}}", "onnx has logits but no feature maps"),
        (FILE, "[{path: logits, loss: dml}, {path: hidden, loss: affinity}]", "which path hidden"),
        (GIVEN, "{path: logits, teacher_view: same}", "write teacher_view: weak, or use a teacher of kind onnx"),
        (GIVEN, "[{path: logits, loss: dml, teacher_view: same}]", "needs them for augmented"),
        ("{kind: predictions}", "{path: logits}", "teacher.folder: is missing"),
        ("{kind: onnx, file: p, std: 0}", "{path: logits}", "teacher.std: must be greater than 0"),
        ("{kind: null}", "{path: logits}", "teacher.kind: must be one of network, onnx, predictions; got 'null'"),
        ("{kind: nnunet}", "{path: logits}", "teacher.kind: must be one of network, onnx, predictions; got 'nnunet'"),
        ("{kind: predictions, folder: p, encoder: x}", "{path: logits}", "teacher.encoder: unknown key; allowed here"),
    ],
)
def test_settings_the_teacher_cannot_support_are_refused(study_file, teacher, distillation, message):
    with pytest.raises(StudyFileError, match=message):
        load_study(study_file(f"name: a\nteacher: {teacher}\ndistillation: {distillation}\n"))
