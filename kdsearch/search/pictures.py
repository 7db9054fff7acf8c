"""Shows what networks predict on a few validation images, the same ones for every student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import group_of
from kdsearch.distill.arrays import Images
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.materials import Materials
from kdsearch.export.checks import lesion_dice
from kdsearch.export.folder import load_weights
from kdsearch.files.home import weights_path
from kdsearch.measure.scores import predict_classes
from kdsearch.report.overlays import Bits, Case, Row, choose_cases, overlay_sheet
from kdsearch.trials.record import Student


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
