"""Shows what networks predict on a few validation images, the same ones for every student."""

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
from kdsearch.files.digests import digest_file
from kdsearch.files.home import study_folder, weights_path
from kdsearch.files.schema import Schema, unchanged
from kdsearch.files.whole import write_whole
from kdsearch.measure.scores import predict_classes
from kdsearch.report.overlays import Bits, Case, Row, choose_cases, overlay_sheet
from kdsearch.report.repeats import Floats, Repeat
from kdsearch.search.store import read_store
from kdsearch.trials.record import Student, students_of


class Pictures:
    """Predictions on the validation images; each network is asked once."""

    def __init__(self, study: StudyConfig, materials: Materials, home: Path) -> None:
        self._study, self._materials = study, materials
        self._home = home
        self._images: Images | None = None
        self._known: dict[int | None, tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]] = {}

    def dice(self, student: Student) -> npt.NDArray[np.float64]:
        """N Dice coefficients of the validation images, NaN where an image holds no lesion.

        Of a student that was stored before they were, its network is asked; raises KdsearchError where its weights are
        not there.
        """
        stored = student.scores.per_image
        return self._predict(student)[1] if stored is None else np.array(stored.dice)

    def has_dice(self, student: Student) -> bool:
        """Whether ``dice`` can answer on this machine."""
        return student.scores.per_image is not None or self.has_weights(student)

    @property
    def groups(self) -> tuple[str, ...]:
        """N names of what the validation images belong to; such as patients, or each to itself."""
        infos = self._materials.dataset.infos
        return tuple(group_of(infos[position]) for position in self._materials.splits.validation)

    def has_weights(self, student: Student) -> bool:
        """Whether the student can be asked on this machine."""
        return weights_path(self._home, self._study.name, student.job).is_file()

    def sheet(self, student: Student) -> bytes:
        """PNG of the cases as teacher and student see them."""
        rows = [self._row(case, (None, student)) for case in self._cases()]
        title = f"{self._study.name}, trial {student.number} ({student.recipe.path}): {student.scores.headline()}"
        return overlay_sheet(rows, ("teacher", f"trial {student.number}"), title=title)

    def _cases(self) -> tuple[Case, ...]:
        return choose_cases(self._predict(None)[1])

    def _row(self, case: Case, networks: Sequence[Student | None]) -> Row:
        images = self._validation()
        predictions: list[tuple[Bits, npt.NDArray[np.float64]]] = [self._predict(network) for network in networks]
        info = self._materials.dataset.infos[self._materials.splits.validation[case.position]]
        return Row(
            caption=f"{case.kind}: {info.id.rpartition('/')[2]}",
            grey=images.grey[case.position].numpy(),
            truth=images.masks[case.position].numpy() > 0,
            predictions=tuple(masks[case.position] for masks, _ in predictions),
            dice=tuple(float(dice[case.position]) for _, dice in predictions),
        )

    @torch.inference_mode()
    def _predict(self, student: Student | None) -> tuple[Bits, npt.NDArray[np.float64]]:
        """Masks N×H×W and N Dice coefficients; None is the teacher."""
        key = None if student is None else student.number
        if key not in self._known:
            if student is None:
                network: torch.nn.Module = self._materials.teacher.load(torch.device("cpu"))
            else:
                network = load_weights(student, weights_path(self._home, self._study.name, student.job))
            images = self._validation()
            logits = predict_logits(network, images.grey)
            self._known[key] = (predict_classes(logits) > 0).numpy(), lesion_dice(logits, images).numpy()
        return self._known[key]

    def _validation(self) -> Images:
        if self._images is None:
            data = self._materials.training_data(torch.device("cpu"))
            self._images = data.validation
        return self._images


TEACHER = "teacher"
SCHEMA = Schema(what="Dice of a repeat", upgrades=(unchanged,))

logger = logging.getLogger(__name__)


def gather_repeats(study: StudyConfig, home: Path) -> tuple[Repeat, ...]:
    """Every repeat that has finished students; test images are scored where the study says ``report_test_scores``.

    Scores are kept beside the study's weights, so that each network is asked once. Raises KdsearchError where images,
    teacher or a study are not there.
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
    infos, lesion = materials.dataset.infos, materials.dataset.has_lesion
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
    place = study_folder(home, study.name) / f"{part}-dice.json"
    key = f"{materials.splits.fingerprint} {materials.teacher.id}"
    known = _known(place, key)
    weights = {student.number: _weights(study, home, student) for student in students}
    digests = {number: digest_file(path) for number, path in weights.items()}
    lacking = [student for student in students if digests[student.number] not in known]
    if lacking or TEACHER not in known:
        images = images_at(materials.dataset, _positions(materials.splits, part), torch.device("cpu"))
        known[TEACHER] = _dice(materials.teacher.load(torch.device("cpu")), images)
        for student in lacking:
            known[digests[student.number]] = _dice(load_weights(student, weights[student.number]), images)
        write_whole(str(place), json.dumps(SCHEMA.stamped({"of": key, "dice": known})).encode())
    return {name: np.array(values) for name, values in known.items()}


def _known(place: Path, key: str) -> dict[str, list[float]]:
    """What was scored of these images before; nothing if the file is damaged."""
    if not place.is_file():
        return {}
    try:
        kept = SCHEMA.upgraded(json.loads(place.read_text(encoding="utf-8")))
        return dict(kept["dice"]) if kept["of"] == key else {}
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s); the networks are scored again", place, first_line(error))
        return {}


def _positions(splits: Splits, part: str) -> tuple[int, ...]:
    return splits.test if part == "test" else splits.validation


@torch.inference_mode()
def _dice(network: torch.nn.Module, images: Images) -> list[float]:
    dice = lesion_dice(predict_logits(network, images.grey), images)
    return [float(value) for value in dice[~dice.isnan()]]


def _weights(study: StudyConfig, home: Path, student: Student) -> Path:
    return weights_path(home, study.name, student.job)
