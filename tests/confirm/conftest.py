"""A study that was searched, confirmed and tested: made once, and copied by each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import kdsearch
from tests.shared import copy_place, made_once
from tests.tiny import CONFIRMABLE


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory, tiny_home: Path, empty_record: Path) -> Path:
    """Folders ``searched``, ``confirmed`` and ``tested`` (trial 1), each with all teachers, which take longest."""

    def make(folder: Path) -> None:
        first = folder / "searched"
        shutil.copytree(tiny_home, first / "home")
        shutil.copyfile(empty_record, first / "mlflow.db")
        (first / "study.yaml").write_text(CONFIRMABLE, encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            _study(first, patch).run()
            _study(copy_place(first, folder / "confirmed"), patch).confirm()
            _study(copy_place(first, folder / "tested"), patch).test(1)
        for made, other in (("confirmed", "searched"), ("tested", "searched"), ("searched", "confirmed")):
            shutil.copytree(folder / made / "home/teachers", folder / other / "home/teachers", dirs_exist_ok=True)

    return made_once(tmp_path_factory, "stages", make)


def _study(place: Path, patch: pytest.MonkeyPatch) -> kdsearch.Study:
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    return kdsearch.Study(place / "study.yaml", home=place / "home")


@pytest.fixture
def enter(stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a copy of a stage the current folder, with its home and its MLflow."""

    def enter(stage: str) -> Path:
        place = copy_place(stages / stage, tmp_path / "place")
        monkeypatch.chdir(place)
        monkeypatch.setenv("KDSEARCH_HOME", "home")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        return place

    return enter


@pytest.fixture
def searched(enter: Callable[[str], Path]) -> Path:
    """A finished search."""
    return enter("searched")


@pytest.fixture
def confirmed(enter: Callable[[str], Path]) -> Path:
    """A finished search and its confirmation."""
    return enter("confirmed")


@pytest.fixture
def tested(enter: Callable[[str], Path]) -> Path:
    """A finished search whose trial 1 was tested on the locked images."""
    return enter("tested")
