"""Teachers of their own size, and means of several networks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from kdsearch.campaign.events import JobStarted, Resumed, TrainingTeachers, Waiting
from kdsearch.campaign.preparation import read_images
from kdsearch.campaign.teachers import add_teacher
from kdsearch.campaign.wanted_teachers import WantedTeacher
from kdsearch.config.load import load_study
from kdsearch.config.task import square
from kdsearch.data.dataset import group_of
from kdsearch.data.splits import training_folds
from kdsearch.distill.batches import images_at
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.student import Trainer
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import open_teacher, teacher_folder
from kdsearch.errors import DataError, StudyFileError
from kdsearch.files.digests import digest, digest_file
from kdsearch.measure.scores import dice_per_image, predict_classes
from kdsearch.models.contract import normalize
from kdsearch.models.teacher import Ensemble, Resized, Teacher, map_channels, mean_of_probabilities, resized
from kdsearch.search.recipes import choose
from kdsearch.trials.record import job_of_teacher
from kdsearch.workers.jobs import EpochEnded
from tests.search.setups import finish, inline_campaign, make_materials
from tests.tiny import TINY

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tiny_home, tmp_path_factory):
    """Shared by the tests of this file."""
    return shutil.copytree(tiny_home, tmp_path_factory.mktemp("teachers") / "home")


@pytest.fixture
def made(study_file, home):
    """A study whose teacher has more settings, and its materials."""

    def make(settings: str, distillation: str = "{path: {choice: [none, logits]}}"):
        text = TINY.replace("  encoder_depth: 3\n", f"  encoder_depth: 3\n  {settings}\n")
        study = load_study(study_file(text.replace("{path: {choice: [none, logits]}}", distillation)))
        return study, make_materials(study, home)

    return make


def _wanted(study, home):
    return WantedTeacher(recipe=TeacherRecipe.of(study), images=read_images(study, home))


@pytest.mark.parametrize("members", ["folds", "seeds"])
def test_ensemble_is_the_mean_of_its_members_probabilities(made, home, members):
    study, materials = made(f"ensemble: 2\n  ensemble_by: {members}")
    wanted = _wanted(study, home)
    parts = [part.cached(home) for part in wanted.members()]
    assert len({part.id for part in parts}) == 2
    gray = materials.training_data(CPU).train.pixels
    teacher = materials.teacher.load(CPU)
    assert isinstance(teacher, Ensemble)
    expected = torch.stack([predict_logits(part.load(CPU), gray).sigmoid() for part in parts]).mean(dim=0)
    torch.testing.assert_close(predict_logits(teacher, gray).sigmoid(), expected, atol=1e-5, rtol=0)
    if members == "seeds":
        torch.testing.assert_close(materials.teacher.logits(CPU).float().sigmoid(), expected, atol=1e-3, rtol=0)
        assert materials.teacher.left_out(CPU) is None
    assert materials.teacher.scores.params == sum(part.scores.params for part in parts)
    took = sum(part.scores.train_seconds for part in parts)
    assert materials.teacher.scores.train_seconds == pytest.approx(took)
    assert took > 0


def test_members_that_are_trained_are_named_before_they_begin(made, home, tmp_path):
    study, _ = made("ensemble: 2\n  ensemble_by: folds")
    other = tmp_path / "other"
    shutil.copytree(home / "data", other / "data")
    with inline_campaign(study, other) as campaign:
        events, _ = finish(add_teacher(campaign, read_images(study, other)))
    names = [job_of_teacher(part.folder(other).name) for part in _wanted(study, other).members()]
    assert events[0] == TrainingTeachers(jobs=tuple(names))
    assert [event.job for event in events if isinstance(event, JobStarted)] == names
    with inline_campaign(study, other) as campaign:
        assert finish(add_teacher(campaign, read_images(study, other)))[0] == []


def test_members_of_folds_leave_each_training_image_out_once_and_groups_whole(made, home):
    study, materials = made("average_flipped: false")
    three = study.model_copy(update={"teacher": study.teacher.model_copy(update={"ensemble": 3})})
    wanted = _wanted(three, home)
    train, infos = set(materials.splits.train), materials.dataset.infos
    left_out = [train - set(part.images.splits.train) for part in wanted.members()]
    assert sorted(place for part in left_out for place in part) == sorted(train)
    for part in wanted.members():
        assert part.images.splits.validation == materials.splits.validation
    groups = [{group_of(infos[place]) for place in part} for part in left_out]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_cross_validated_score_uses_the_member_that_was_not_trained_with_the_image(made, home):
    study, materials = made("ensemble: 2")
    found = []
    for part in _wanted(study, home).members():
        left_out = tuple(sorted(set(materials.splits.train) - set(part.images.splits.train)))
        images = images_at(materials.dataset, left_out, CPU)
        predicted = predict_classes(predict_logits(part.cached(home).load(CPU), images.pixels))
        found += dice_per_image(predicted, (images.masks > 0).long()).tolist()
    assert materials.teacher.out_of_fold == pytest.approx(np.nanmean(found))
    assert f"cross-validated on its training images {100 * np.nanmean(found):.1f} %" in materials.teacher.headline()
    assert made("ensemble: 2\n  ensemble_by: seeds")[1].teacher.out_of_fold is None


@pytest.mark.parametrize("size", ["", "  size: 64\n"], ids=["students' size", "larger"])
def test_training_images_are_answered_by_the_member_that_did_not_learn_from_them(made, home, size):
    study, materials = made(f"ensemble: 2\n{size}  ensemble_by: folds")
    train, images = materials.splits.train, materials.training_data(CPU).train
    expected, number_of = {}, {}
    for number, part in enumerate(_wanted(study, home).members()):
        trained = part.cached(home)
        for place in set(train) - set(part.images.splits.train):
            expected[place], number_of[place] = trained.logits(CPU), number
    members = materials.teacher.left_out(CPU)
    assert members.tolist() == [number_of[place] for place in train]
    teacher, image = materials.teacher.load(CPU), normalize(images.pixels)
    network = teacher.network if size else teacher
    asked = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear", antialias=True) if size else image
    by_each = torch.stack([resized(member(asked), (32, 32)) for member in network.members])
    own = by_each[members, torch.arange(len(members))]
    answers = materials.teacher.logits(CPU).float()
    if not size:  # else its members saw the files at their own size
        torch.testing.assert_close(answers, own, atol=0.02, rtol=0.02)
    assert not torch.allclose(answers, mean_of_probabilities(*by_each), atol=0.1)
    torch.testing.assert_close(teacher.logits_by(image, members), answers if size else own, atol=0.02, rtol=0.02)
    everyone = torch.full_like(members, -1)
    moved = image.flip(-1)
    torch.testing.assert_close(teacher.logits_by(moved, everyone), teacher(moved))
    assert torch.equal(materials.packed().teacher.left_out(CPU), members)


def test_ensemble_by_folds_whose_logits_were_a_mean_is_not_taken_for_one_of_today(study_file):
    text = TINY.replace("  encoder_depth: 3\n", "  encoder_depth: 3\n  ensemble: 2\n")
    folds = load_study(study_file(text))
    assert _folder_name(folds) != "056c98b95031a4a1", "as the last commit named it"
    seeds = load_study(study_file(text.replace("ensemble: 2\n", "ensemble: 2\n  ensemble_by: seeds\n")))
    assert _folder_name(seeds) == "cd228d83962c109b"


def test_teacher_of_a_file_is_named_by_its_content_and_an_older_folder_is_still_found(study_file, tmp_path):
    def folder(path):
        text = TINY.replace("weights: none\n  training: {epochs: 1}", f"checkpoint: {path}")
        return teacher_folder(TeacherRecipe.of(load_study(study_file(text))), "a split", tmp_path)

    first, moved, other = (tmp_path / name for name in ("first", "moved", "other"))
    first.write_bytes(b"weights")
    moved.write_bytes(b"weights")
    other.write_bytes(b"others")
    assert folder(first) == folder(moved) != folder(other)
    text = TINY.replace("weights: none\n  training: {epochs: 1}", f"checkpoint: {first}")
    kept = load_study(study_file(text)).teacher.model_dump(
        mode="json", exclude={"kind", "average_flipped", "ensemble", "ensemble_by"}
    )
    del kept["training"]["ema_epochs"], kept["size"]
    for name in ("brightness", "contrast", "saturation"):
        del kept["training"]["augmentation"][name]
    kept["training"]["encoder_rate"] = kept["training"].pop("encoder_lr_factor")
    older = tmp_path / "teachers" / digest(2, "a split", kept, digest_file(first), 0)
    older.mkdir(parents=True)
    (older / "scores.json").write_text("{}")
    assert folder(first) == older
    assert folder(moved) != older


def _folder_name(study):
    return teacher_folder(TeacherRecipe.of(study), "a split", Path()).name


def test_teacher_of_its_own_size_learns_from_larger_images_and_answers_at_the_students(made):
    study, materials = made("size: 64", "{path: attention}")
    teacher = materials.teacher.load(CPU)
    assert isinstance(teacher, Resized)
    assert materials.teacher.logits(CPU).shape[1:] == (1, 32, 32)
    gray = materials.training_data(CPU).train.pixels
    torch.testing.assert_close(
        predict_logits(teacher, gray), materials.teacher.logits(CPU).float(), atol=2e-2, rtol=1e-2
    )
    others = torch.randint(0, 255, (2, 32, 32), dtype=torch.uint8)
    assert teacher(normalize(others)).shape == (2, 1, 32, 32)
    enlarged = resized(teacher.network(resized(normalize(others), (64, 64))), (32, 32))
    torch.testing.assert_close(teacher(normalize(others)), enlarged)
    held = materials.training_data(CPU).validation
    dice = dice_per_image(predict_classes(predict_logits(teacher, held.pixels)), (held.masks > 0).long())
    assert float(dice.nanmean()) == pytest.approx(materials.teacher.scores.dice, abs=0.05), (
        "close to its recorded score"
    )
    at_64, at_32 = (materials.teacher.scores.macs, made("average_flipped: false")[1].teacher.scores.macs)
    assert at_64 == pytest.approx(4 * at_32, rel=0.01)
    maps = [one for one in teacher.features(normalize(gray[:1])) if one.shape[1] > 1]
    assert map_channels(study.teacher, square(32)) == {32 // one.shape[-1]: one.shape[1] for one in maps}
    recipe = choose(study, lambda _, value: value.bounds[0] if hasattr(value, "bounds") else value, seed=0)
    weights = [
        finish(Trainer(one.training_data(CPU), one.teacher).distil(recipe))[1].weights
        for one in (materials, materials.packed())
    ]
    assert weights[0] == weights[1]


def test_mean_of_larger_ones_survives_the_way_to_another_machine(made, home):
    study, materials = made("ensemble: 2\n  size: 64")
    gray = normalize(materials.training_data(CPU).validation.pixels)
    teacher, packed = materials.teacher.load(CPU), materials.packed().teacher.load(CPU)
    assert isinstance(teacher, Resized)
    assert torch.equal(teacher(gray), packed(gray))
    wanted = _wanted(study, home)
    assert open_teacher(wanted.recipe, wanted.folder(home)).scores == materials.teacher.scores
    assert isinstance(wanted.members()[0].cached(home).own_network(), Teacher)


def test_settings_that_are_not_used_leave_a_teacher_where_it_was(made):
    assert made("average_flipped: false")[1].teacher.id == made("ensemble: 1\n  size: 32")[1].teacher.id


def test_too_few_images_for_as_many_folds_are_refused(made):
    study, materials = made("average_flipped: false")
    with pytest.raises(DataError, match="training images are too few for 40 members that differ by folds; use fewer"):
        training_folds(materials.dataset, materials.splits, count=40)
    assert len(training_folds(materials.dataset, materials.splits, count=2)) == 2
    assert study.teacher.work(square(32)) == 1


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("{size: 65}", "teacher.size: 65 is not divisible by 32, .* the nearest sizes that work are 64 or 96"),
        ("{checkpoint: a, ensemble: 2}", "used unchanged; remove checkpoint or ensemble"),
        ("{ensemble_by: seeds}", "ensemble_by applies only to an ensemble; write"),
        (
            "{size: 96}\ndata: {size: 64}\ndistillation: {path: attention}",
            r"must be 1, 2, 4, 8 or 16 times data.size \(64\) .* got 96; write 128",
        ),
        ("{ensemble: 11}", "teacher.ensemble: must be less than or equal to 10"),
        ("{ensemble: 2, ensemble_by: bags}", "teacher.ensemble_by: must be one of folds, seeds"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(study_file, teacher, message):
    with pytest.raises(StudyFileError, match=message):
        load_study(study_file(f"name: a\nteacher: {teacher}\n"))


def test_teacher_cost_counts_members_folds_and_pixels(study_file):
    study = load_study(study_file("name: a\nteacher: {ensemble: 3, size: 256}\ndata: {size: 128}\n"))
    assert study.teacher.work(square(128)) == pytest.approx(3 * (2 / 3) * 4)


def test_ensemble_averages_probabilities():
    logits = [torch.randn(2, channels, 4, 4) for channels in (1, 1, 1)]
    expected = torch.stack([one.sigmoid() for one in logits]).mean(dim=0)
    torch.testing.assert_close(mean_of_probabilities(*logits).sigmoid(), expected)
    several = [torch.randn(2, 3, 4, 4) for _ in range(3)]
    expected = torch.stack([one.softmax(dim=1) for one in several]).mean(dim=0)
    torch.testing.assert_close(mean_of_probabilities(*several).softmax(dim=1), expected)


def test_unlabelled_images_are_asked_about_at_the_teacher_s_own_size(study_file, home):
    def made(count: int):
        more = f"  unlabelled: [{{reader: phantom, name: more, seed: 5, images: {count}}}]\n"
        text = TINY.replace("  size: 32\n", f"  size: 32\n{more}").replace("depth: 3\n", "depth: 3\n  size: 64\n", 1)
        return make_materials(load_study(study_file(text)), home)

    for count in (12, 14):
        materials = made(count)
        teacher = materials.teacher.load(CPU)
        gray = torch.from_numpy(np.array(materials.unlabelled.whole.images))
        enlarged = resized(teacher.network(resized(normalize(gray), (64, 64))), (32, 32))
        assert len(gray) == count
        assert not torch.allclose(teacher(normalize(gray)), enlarged, atol=1e-3)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a megabyte; skips where this user may not make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.slow
def test_trained_teacher_waits_for_a_full_disk(tiny, small_disk):
    """Hours of training would be lost otherwise."""
    images = read_images(tiny, small_disk)
    full = small_disk / "full"
    events = []
    with inline_campaign(tiny, small_disk) as campaign:
        steps = add_teacher(campaign, images)
        for event in steps:
            events.append(event)
            if isinstance(event, EpochEnded):
                full.write_bytes(bytes(shutil.disk_usage(small_disk).free - 20_000))
            if isinstance(event, Waiting):
                assert event.what == "cannot write the teacher to disk"
                assert "No space left on device" in event.reason
                full.unlink()
                subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    kinds = [type(event) for event in events]
    assert kinds[kinds.index(Waiting) :] == [Waiting, Resumed]
    (folder,) = (path for path in (small_disk / "teachers").iterdir() if path.is_dir())
    assert open_teacher(TeacherRecipe.of(tiny), folder) is not None
