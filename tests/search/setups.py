"""What workers need, for tests of executors."""

from __future__ import annotations

from pathlib import Path

from kdsearch.config.study import StudyConfig
from kdsearch.distill.materials import Materials, Place
from kdsearch.search.events import MaterialsReady
from kdsearch.search.preparation import prepare
from kdsearch.workers.jobs import Resources

ONE_THREAD = Resources(device="cpu", threads=1)


def make_materials(study: StudyConfig, home: Path) -> Materials:
    """The study's images, split and teacher, made there."""
    return next(event.materials for event in prepare(study, home) if isinstance(event, MaterialsReady))


def make_place(study: StudyConfig, home: Path) -> Place:
    """Where they then lie."""
    return make_materials(study, home).place(home)
