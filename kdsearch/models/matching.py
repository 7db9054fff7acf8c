"""Whether the networks of a study can be compared as its distillation asks."""

from __future__ import annotations

from kdsearch.config.distillation import DistilledPath, Stride
from kdsearch.config.space import compared_by, extreme_students
from kdsearch.config.study import StudyConfig
from kdsearch.errors import StudyFileError


def require_comparable(study: StudyConfig) -> None:
    """Raises StudyFileError where a network lacks maps of a stride, or ``hidden`` would compare unequal channels."""
    wanted = {(path, stride) for path, stride in compared_by(study) if path == "hidden" or stride is not None}
    if not wanted:
        return
    from kdsearch.models.teacher import map_channels  # brings torch

    given = map_channels(study.teacher, size=study.data.size)
    for path, stride in sorted(wanted, key=str):
        _require(study, path, stride, given)


def _require(study: StudyConfig, path: DistilledPath, stride: Stride | None, given: dict[int, int]) -> None:
    if stride is not None and stride not in given:
        raise StudyFileError(
            f"distillation: {path} compares maps of stride {stride}, and the teacher has them of "
            f"{_listed(given)}; write one of those, or another teacher.encoder or encoder_depth"
        )
    teacher = given[stride or max(given)]
    for spec in extreme_students(study):
        own = dict(zip((2**stage for stage in range(len(spec.channels))), spec.channels, strict=True))
        if stride is not None and stride not in own:
            raise StudyFileError(
                f"distillation: {path} compares maps of stride {stride}, and a {spec.describe()} has them of "
                f"{_listed(own)}; write one of those, or search deeper students"
            )
        student = own[stride or max(own)]
        if path == "hidden" and student != teacher:
            raise StudyFileError(
                f"distillation: hidden compares maps channel by channel, but the teacher's have {teacher} channels and "
                f"those of a {spec.describe()} {student}; write attention or regressor, or search students with as "
                "many channels"
            )


def _listed(known: dict[int, int]) -> str:
    return ", ".join(str(stride) for stride in sorted(known))
