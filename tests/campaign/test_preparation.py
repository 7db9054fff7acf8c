"""How many workers a study has on a machine."""

from __future__ import annotations

import pytest

from kdsearch.campaign.driver import WORKERS_ON_A_GPU, workers_of
from kdsearch.config.load import load_study
from kdsearch.measure.latency import cores
from tests.tiny import TINY


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", cores()), ("cuda", min(cores(), WORKERS_ON_A_GPU)), ("mps", 1)]
)
def test_workers_are_as_many_as_the_device_has_use_for(study_file, device, expected):
    assert workers_of(load_study(study_file(TINY.replace(", workers: 1", ""))), device=device) == expected
    assert workers_of(load_study(study_file(TINY.replace("workers: 1", "workers: 3"))), device=device) == 3
    assert workers_of(load_study(study_file(TINY.replace("workers: 1", "executor: inline"))), device=device) == 1
