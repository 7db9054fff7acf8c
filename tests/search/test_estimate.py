"""How long a search takes, estimated before it starts."""

from __future__ import annotations

import pytest
import torch
import yaml

from kdsearch.campaign.preparation import read_images
from kdsearch.config.load import load_study
from kdsearch.files.home import samples_folder
from kdsearch.search.estimate import estimate
from kdsearch.search.samples import keep_samples
from tests.tiny import INLINE

DEEP = yaml.safe_load(INLINE)


def _study(**changes):
    content = {name: dict(part) if isinstance(part, dict) else part for name, part in DEEP.items()}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        content[section] = {**content[section], name: value}
    return load_study(content)


@pytest.fixture
def images(tmp_path):
    return read_images(_study(), tmp_path / "home")


def test_estimate_grows_with_epochs_and_trials(images, tmp_path, monkeypatch):
    monkeypatch.setattr("kdsearch.search.estimate._step_s", lambda training, *_: training.close() or 0.5)
    once = estimate(_study(), images, tmp_path, students=4)
    steps = 2  # 27 training images in batches of 16
    assert once.teacher_s == pytest.approx(0.5 * steps)
    assert once.students_s == pytest.approx(4 * (1.2 * 0.5 * steps * 2 + 1.5))
    twice = estimate(_study(training__epochs=4), images, tmp_path, students=4)
    assert twice.students_s == pytest.approx(4 * (1.2 * 0.5 * steps * 4 + 1.5))
    assert (once.students, once.workers, once.at_most) == (4, 1, False)
    stopping = estimate(_study(search__pruning={"pruner": "reach"}), images, tmp_path, students=4)
    assert stopping.at_most


def test_steps_are_timed(images, tmp_path):
    threads = torch.get_num_threads()
    about = estimate(_study(), images, tmp_path, students=1)
    assert 0 < about.teacher_s < 60
    assert 1.5 < about.students_s < 60
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    "changes",
    [{"search__executor": "ray"}, {"search__limits": {"params": 1}}, {}],
    ids=["cluster", "impossible limit", "nothing to do"],
)
def test_no_estimate_without_a_measure(images, tmp_path, changes):
    assert estimate(_study(**changes), images, tmp_path, students=0 if not changes else 3) is None


def test_a_study_of_simulated_images_leaves_three_of_them(images, tmp_path):
    keep_samples(_study(), images, tmp_path)
    files = sorted(samples_folder(tmp_path, "tiny").iterdir())
    assert len(files) == 3
    test = {images.dataset.infos[place].id.replace("/", "-") for place in images.splits.test}
    assert {path.stem for path in files} <= test
    files[0].unlink()
    keep_samples(_study(), images, tmp_path)
    assert len(list(samples_folder(tmp_path, "tiny").iterdir())) == 2
