"""A few simulated images as files, so that a student can be tried without images of one's own."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from kdsearch.config.sources import PhantomSource
from kdsearch.config.study import StudyConfig
from kdsearch.data.native import native_images
from kdsearch.distill.materials import Materials
from kdsearch.files.atomic import atomic_folder
from kdsearch.files.home import samples_folder

SAMPLES = 3


def keep_samples(study: StudyConfig, images: Materials, home: Path) -> None:
    """Writes test images of a study that only has simulated ones, unless they exist."""
    folder = samples_folder(home, study.name)
    if folder.is_dir() or not all(isinstance(source, PhantomSource) for source in study.data.sources):
        return
    shown = images.dataset.has_foreground
    chosen = [place for place in images.splits.test if shown[place]][:SAMPLES]
    with atomic_folder(folder) as beside:
        for one in native_images(study.data, {images.dataset.infos[place].id for place in chosen}):
            Image.fromarray(one.pixels).save(beside / f"{one.id.replace('/', '-')}.png")
