"""The phantom is hard enough to have a front."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdsearch.config.load import load_study
from kdsearch.config.networks import UNetSpec
from kdsearch.config.task import square
from kdsearch.data.cache import load_dataset
from kdsearch.data.splits import split
from kdsearch.distill.batches import training_data
from kdsearch.distill.loop import train
from kdsearch.distill.objective import Supervised
from kdsearch.models.students import build_student
from kdsearch.models.teacher import build_teacher

STUDY = Path(__file__).parents[2] / "studies" / "pareto.yaml"


@pytest.fixture
def two_threads():
    """Uses both cores while this test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_good_teacher_reaches_085_and_the_smallest_student_stays_010_below(tmp_path):
    study = load_study(STUDY)
    dataset = load_dataset(study.data, tmp_path)
    splits = split(dataset, study.data.split, train_on_negatives=False)
    data = training_data(dataset, splits, torch.device("cpu"))
    teacher = build_teacher(study.teacher, square(study.data.size))
    spec = study.teacher.training
    best = _best_dice(teacher, data, spec)
    smallest = build_student(UNetSpec(width=4, depth=2, convs_per_stage=1, conv="separable"))
    assert best == pytest.approx(0.85, abs=0.03)
    assert _best_dice(smallest, data, spec) < best - 0.10


def _best_dice(model, data, spec):
    return max(report.dice for report in train(model, Supervised(model, spec.supervised_loss), data, spec, seed=0))
