"""The Ray settings of a study file."""

from __future__ import annotations

import sys

import pytest

from kdsearch.config.load import load_study
from kdsearch.config.search import SearchConfig
from kdsearch.errors import SearchError, StudyFileError
from kdsearch.workers.ray_cluster import require_ray


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{address: 'ray://head:10001'}", "must be auto, local or HOST:PORT"),
        ("{cpus_per_trial: 1.5}", "must be between 0 and 1, or a whole number, got 1.5"),
        ("{gpus_per_trial: -1}", "must be greater than or equal to 0"),
        ("{adress: auto}", "unknown key; allowed here: address, cpus_per_trial, gpus_per_trial; did you mean"),
    ],
)
def test_invalid_values_are_refused(study_file, section, message):
    with pytest.raises(StudyFileError, match=message):
        load_study(study_file(f"name: a\nsearch: {{executor: ray, ray: {section}}}\n"))


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0), ("cpu", 0.5)])
def test_device_that_contradicts_the_gpus_is_refused(study_file, device, gpus):
    text = f"name: a\ndevice: {device}\nsearch: {{executor: ray, ray: {{gpus_per_trial: {gpus}}}}}\n"
    with pytest.raises(StudyFileError, match="contradict each other"):
        load_study(study_file(text))


@pytest.mark.parametrize("address", ["auto", "local", "head.example:6379", "10.0.0.7:6379"])
def test_valid_addresses_are_accepted(study_file, address):
    study = load_study(
        study_file(f"name: a\nsearch: {{executor: ray, ray: {{address: '{address}', gpus_per_trial: 0.25}}}}")
    )
    assert study.search.ray.address == address


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ray" else object())
    require_ray(SearchConfig())
    with pytest.raises(SearchError, match=r"ray is not installed; pip install kdsearch\[ray\]"):
        require_ray(SearchConfig(executor="ray"))
