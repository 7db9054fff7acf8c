"""Measures how fast this machine trains a study's students, and fits the study into a time."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import math
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from kdsearch.campaign.driver import workers_of
from kdsearch.campaign.events import DataReady, JobStarted, LoadingData, SearchStarted, TrainingTeachers, TrialEnded
from kdsearch.config.data import BACKGROUND, ClassNumbers
from kdsearch.config.load import load_study
from kdsearch.config.sources import FolderSource, source_name, threshold_of
from kdsearch.config.study import StudyConfig
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import Dataset
from kdsearch.data.layout import Entry
from kdsearch.data.masks import SourceMasks
from kdsearch.data.pixels import SUFFIXES
from kdsearch.data.splits import split
from kdsearch.errors import KdsearchError
from kdsearch.trials.record import makes_teacher
from kdsearch.workers.jobs import EpochEnded
from kdsearch.workflow.init import Found
from kdsearch.workflow.new_study import Plan
from kdsearch.workflow.run import run

REHEARSED = 64
"""Images of the rehearsal."""
STEPS = 1_500
"""Steps after which small students have learned most of what they can."""
EPOCHS = (15, 80)
TRIALS = (12, 60)
BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast this machine trains, measured in a rehearsal."""

    reading_s: float
    """Seconds to read an image."""
    teacher_s: float
    """Seconds per training image and epoch of the teacher."""
    student_s: float
    """The same for a student, averaged over students of all sizes."""
    trial_s: float
    """Seconds that each trial takes in addition to its epochs."""
    start_s: float
    """Seconds until the first job starts, and after the last."""
    workers: int
    """Students that are trained at once."""

    def seconds(self, *, images: int, training: int, epochs: int, trials: int) -> float:
        """Estimates how long a study takes with so many images, and training images among them."""
        students = trials * (epochs * training * self.student_s + self.trial_s) / min(self.workers, trials)
        return self.start_s + images * self.reading_s + epochs * training * self.teacher_s + students


@dataclass(slots=True)
class _Timer:
    """Collects times from the events of a rehearsal."""

    begun: float = field(default_factory=time.monotonic)
    reading: float = 0.0
    started: float = 0.0
    device: str = "cpu"
    reports: dict[str, list[float]] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    extra: list[float] = field(default_factory=list)

    def take(self, event: object) -> None:
        """Records what the event tells."""
        now = time.monotonic()
        if isinstance(event, LoadingData):
            self.reading = now
        elif isinstance(event, TrainingTeachers):
            self.reading = now - self.reading
        elif isinstance(event, DataReady):
            self.device = event.device
        elif isinstance(event, JobStarted):
            self.starts[event.job] = now
        elif isinstance(event, EpochEnded):
            self.reports.setdefault(event.job, []).append(event.report.seconds)
        elif isinstance(event, SearchStarted):
            self.started = now
        elif isinstance(event, TrialEnded) and event.record.job in self.reports:
            self.extra.append(max(0.0, now - self.starts[event.record.job] - self.reports[event.record.job][-1]))

    def pace(self, study: StudyConfig, *, images: int, training: int) -> Pace:
        """What was measured with so many images; leaves out the first epoch of each job, which also builds things."""
        each: dict[bool, list[float]] = {True: [], False: []}
        for job, seconds in self.reports.items():
            if len(seconds) > 1:
                each[makes_teacher(job)].append((seconds[-1] - seconds[0]) / (len(seconds) - 1) / training)
        if not each[True] or not each[False]:
            raise KdsearchError("init: the rehearsal trained no student; run kdsearch check on the written file")
        taught = sum(seconds[-1] for job, seconds in self.reports.items() if makes_teacher(job))
        return Pace(
            reading_s=self.reading / images,
            teacher_s=float(np.mean(each[True])),
            student_s=float(np.mean(each[False])),
            trial_s=float(np.mean(self.extra)),
            start_s=max(0.0, self.started - self.begun - self.reading - taught),
            workers=workers_of(study, device=self.device),
        )


def rehearse(plan: Plan) -> Pace:
    """Runs the study on a few images for two epochs, in a temporary folder, and measures its pace."""
    with tempfile.TemporaryDirectory(prefix="kdsearch-init-") as name:
        place = Path(name)
        study = _rehearsal(plan, place)
        (one,) = run(study, home=place / "home", environment={"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db"})
        timer = _Timer()
        with contextlib.closing(one.events):
            for event in one.events:
                timer.take(event)
        dataset = load_dataset(study.data, place / "home")
        return timer.pace(study, images=len(dataset.infos), training=_training_images(dataset, study))


def _rehearsal(plan: Plan, place: Path) -> StudyConfig:
    """The study of the plan with a few of its images."""
    chosen = _some(plan.found)
    with (place / "images.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(("image", "mask"))
        table.writerows((_image_of(entry, place).absolute(), _mask_of(entry, plan.found, place)) for entry in chosen)
    source = FolderSource(
        reader="folder", folder=str(place), csv="images.csv", threshold=threshold_of(plan.found.source)
    )
    file = place / "rehearsal.yaml"
    file.write_text(plan.text(), encoding="utf-8")
    study = load_study(file)
    data = study.data.model_copy(update={"sources": (source,), "on_invalid": "skip"})
    return study.model_copy(update={"name": "rehearsal", "data": data})


def _image_of(entry: Entry, place: Path) -> Path:
    """The file of an image; frames of DICOM clips are saved as images."""
    if entry.image.suffix.lower() in SUFFIXES:
        return entry.image
    path = place / f"{hashlib.sha256(entry.id.encode()).hexdigest()}-image.png"
    entry.picture().save(path)
    return path


def _mask_of(entry: Entry, found: Found, place: Path) -> Path:
    """The mask of an image; named objects and segments are drawn as class numbers."""
    if entry.masks and not entry.names:
        return entry.masks[0].absolute()
    numbers = {name: number for number, name in enumerate((BACKGROUND, *(found.names or set(entry.names))))}
    masks = SourceMasks(numbers=ClassNumbers(values={}, names=numbers))
    image = entry.picture()
    path = place / f"{hashlib.sha256(entry.id.encode()).hexdigest()}.png"
    Image.fromarray(masks.of(entry, shape=(image.height, image.width))).save(path)
    return path


def _some(found: Found) -> list[Entry]:
    """A few images with objects, spread over all of them."""
    infos, prefix = found.dataset.infos, f"{source_name(found.source)}/"
    shown = {infos[place].id.removeprefix(prefix) for place in np.flatnonzero(found.dataset.has_foreground)}
    entries = [entry for entry in found.entries if entry.id in shown and (entry.masks or entry.shapes)]
    step = max(1, len(entries) // REHEARSED)
    return entries[::step][:REHEARSED]


def _training_images(dataset: Dataset, study: StudyConfig) -> int:
    return len(split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives).train)


def fit(plan: Plan, pace: Pace, *, minutes: float) -> tuple[Plan, float]:
    """Returns the plan with as many epochs and trials as fit into the time, and the estimated seconds.

    Epochs and trials are at least those with which a study makes sense, even if they take longer.
    """
    dataset = plan.found.dataset
    images, training = len(dataset.infos), _training_images(dataset, load_study({"name": "a"}))
    wanted = min(max(math.ceil(STEPS / math.ceil(training / BATCH)), EPOCHS[0]), EPOCHS[1])
    candidates = [(epochs, trials) for trials in range(TRIALS[1], TRIALS[0] - 1, -4) for epochs in _fewer(wanted)]
    allowed = [
        (epochs, trials)
        for epochs, trials in candidates
        if pace.seconds(images=images, training=training, epochs=epochs, trials=trials) <= 60 * minutes
    ]
    epochs, trials = max(allowed, key=lambda pair: (min(pair[1], 40), pair[0], pair[1]), default=(EPOCHS[0], TRIALS[0]))
    fitted = replace(plan, epochs=epochs, trials=trials)
    return fitted, pace.seconds(images=images, training=training, epochs=epochs, trials=trials)


def _fewer(epochs: int) -> list[int]:
    """The wanted number of epochs and smaller ones."""
    return sorted({max(EPOCHS[0], round(epochs * share)) for share in (1, 0.85, 0.7, 0.55, 0.4, 0.3)}, reverse=True)
