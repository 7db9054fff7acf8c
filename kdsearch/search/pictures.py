"""Predictions of teachers and students: Dice per image, and overlays of a few validation images."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from kdsearch.campaign.preparation import open_materials
from kdsearch.config.study import StudyConfig, replicates_of
from kdsearch.data.dataset import Splits, group_of
from kdsearch.distill.batches import Images, images_at
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.materials import Materials
from kdsearch.errors import NotRunYetError, first_line
from kdsearch.export.checks import lesion_dice
from kdsearch.export.folder import load_weights
from kdsearch.files.atomic import atomic_write
from kdsearch.files.digests import digest_file
from kdsearch.files.home import study_folder, weights_path
from kdsearch.files.schema import Schema, unchanged
from kdsearch.measure.scores import predict_classes
from kdsearch.report.overlays import Case, Classes, Row, choose_cases, overlay_sheet
from kdsearch.report.repeats import Floats, Repeat
from kdsearch.search.store import read_store
from kdsearch.trials.record import Student, students_of


class Pictures:
    """Predictions on the validation images, computed once per network."""

    def __init__(self, study: StudyConfig, materials: Materials, home: Path) -> None:
        self._study, self._materials = study, materials
        self._home = home
        self._images: Images | None = None
        self._known: dict[int | None, tuple[Classes, npt.NDArray[np.float64]]] = {}

    def dice(self, student: Student) -> npt.NDArray[np.float64]:
        """N Dice coefficients of the validation images, NaN for negative images.

        Predicts the images if an older release stored no coefficients; raises KdsearchError if the weights are missing.
        """
        stored = student.scores.per_image
        return self._predict(student)[1] if stored is None else np.array(stored.dice)

    def has_dice(self, student: Student) -> bool:
        """Whether ``dice`` works on this machine."""
        return student.scores.per_image is not None or self.has_weights(student)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the N validation images, such as patients; an image without a group is a group of its own."""
        infos = self._materials.dataset.infos
        return tuple(group_of(infos[position]) for position in self._materials.splits.validation)

    def has_weights(self, student: Student) -> bool:
        """Whether the student's weights are on this machine."""
        return weights_path(self._home, self._study.name, student.job).is_file()

    def sheet(self, student: Student) -> bytes:
        """A PNG with the predictions of teacher and student on selected cases."""
        rows = [self._row(case, (None, student)) for case in choose_cases(self._predict(None)[1])]
        title = f"{self._study.name}, trial {student.number} ({student.recipe.path}): {student.scores.headline()}"
        return overlay_sheet(
            rows, ("teacher", f"trial {student.number}"), title=title, classes=self._validation().classes
        )

    def _row(self, case: Case, networks: Sequence[Student | None]) -> Row:
        images = self._validation()
        predictions: list[tuple[Classes, npt.NDArray[np.float64]]] = [self._predict(network) for network in networks]
        info = self._materials.dataset.infos[self._materials.splits.validation[case.position]]
        return Row(
            caption=f"{case.kind}: {info.id.rpartition('/')[2]}",
            pixels=images.pixels[case.position].permute(1, 2, 0).squeeze(2).numpy(),
            truth=images.masks[case.position].numpy(),
            predictions=tuple(masks[case.position] for masks, _ in predictions),
            dice=tuple(float(dice[case.position]) for _, dice in predictions),
        )

    @torch.inference_mode()
    def _predict(self, student: Student | None) -> tuple[Classes, npt.NDArray[np.float64]]:
        """Predicts class numbers N×H×W and N Dice coefficients; None means the teacher."""
        key = None if student is None else student.number
        if key not in self._known:
            if student is None:
                network: torch.nn.Module = self._materials.teacher.load(torch.device("cpu"))
            else:
                network = load_weights(
                    student, weights_path(self._home, self._study.name, student.job), self._study.data.task
                )
            images = self._validation()
            logits = predict_logits(network, images.pixels)
            self._known[key] = predict_classes(logits).numpy().astype(np.uint8), lesion_dice(logits, images).numpy()
        return self._known[key]

    def _validation(self) -> Images:
        if self._images is None:
            self._images = self._materials.training_data(torch.device("cpu")).validation
        return self._images


TEACHER = "teacher"
SCHEMA = Schema(what="Dice of a repeat", upgrades=(unchanged,))

logger = logging.getLogger(__name__)


def gather_repeats(study: StudyConfig, home: Path) -> tuple[Repeat, ...]:
    """Scores every repeat that has finished students, on the test images if the study sets ``report_test_scores``.

    Caches the scores next to the study's weights. Raises KdsearchError if images, a teacher or a study are missing.
    """
    return tuple(repeat for one in replicates_of(study) if (repeat := _gather(one, home)) is not None)


def _gather(study: StudyConfig, home: Path) -> Repeat | None:
    try:
        store = read_store(study, home)
    except NotRunYetError:
        logger.warning("repeat %s has not been run yet", study.name)
        return None
    students = [student for student in students_of(store.records()) if _weights(study, home, student).is_file()]
    if not students:
        logger.warning("repeat %s has no finished student yet", study.name)
        return None
    materials = open_materials(study, home, data=store.data(), teacher_id=store.teacher_id)
    part = "test" if study.report_test_scores else "validation"
    infos, lesion = materials.dataset.infos, materials.dataset.has_foreground
    scored = [position for position in _positions(materials.splits, part) if lesion[position]]
    dice = _scored(study, materials, home, students, part=part)
    return Repeat(
        students=tuple(students),
        part=part,
        images=tuple(infos[position].id for position in scored),
        groups=tuple(group_of(infos[position]) for position in scored),
        test_to_train=len(scored) / max(1, int(lesion[list(materials.splits.train)].sum())),
        dice={student.number: dice[digest_file(_weights(study, home, student))] for student in students},
        teacher=dice[TEACHER],
        teacher_params=materials.teacher.scores.params,
    )


def _scored(
    study: StudyConfig, materials: Materials, home: Path, students: list[Student], *, part: str
) -> dict[str, Floats]:
    """Dice of the part's images with a lesion, by the digest of a student's weights and for the teacher."""
    path = study_folder(home, study.name) / f"{part}-dice.json"
    key = f"{materials.splits.fingerprint} {materials.teacher.id}"
    known = _known(path, key)
    weights = {student.number: _weights(study, home, student) for student in students}
    digests = {number: digest_file(path) for number, path in weights.items()}
    lacking = [student for student in students if digests[student.number] not in known]
    if lacking or TEACHER not in known:
        images = images_at(materials.dataset, _positions(materials.splits, part), torch.device("cpu"))
        known[TEACHER] = _dice(materials.teacher.load(torch.device("cpu")), images)
        for student in lacking:
            known[digests[student.number]] = _dice(
                load_weights(student, weights[student.number], study.data.task), images
            )
        atomic_write(str(path), json.dumps(SCHEMA.stamped({"of": key, "dice": known})).encode())
    return {name: np.array(values) for name, values in known.items()}


def _known(path: Path, key: str) -> dict[str, list[float]]:
    """Reads the cached scores; empty if there are none or the file is damaged."""
    if not path.is_file():
        return {}
    try:
        kept = SCHEMA.upgraded(json.loads(path.read_text(encoding="utf-8")))
        return dict(kept["dice"]) if kept["of"] == key else {}
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s); scoring the networks again", path, first_line(error))
        return {}


def _positions(splits: Splits, part: str) -> tuple[int, ...]:
    return splits.test if part == "test" else splits.validation


@torch.inference_mode()
def _dice(network: torch.nn.Module, images: Images) -> list[float]:
    dice = lesion_dice(predict_logits(network, images.pixels), images)
    return [float(value) for value in dice[~dice.isnan()]]


def _weights(study: StudyConfig, home: Path, student: Student) -> Path:
    return weights_path(home, study.name, student.job)
