"""Whether the networks of a study can be compared as its distillation asks."""

from __future__ import annotations

from kdsearch.config.distillation import ANY_CHANNELS
from kdsearch.config.space import Comparison, comparisons_of, extreme_students
from kdsearch.config.study import StudyConfig
from kdsearch.config.teacher import TeacherConfig
from kdsearch.errors import StudyFileError
from kdsearch.models.families import cost_of, map_channels_of


def require_comparable(study: StudyConfig) -> None:
    """Raises StudyFileError where a network lacks maps of a stride, or ``hidden`` would compare unequal channels.

    Raises EncoderError where a student at a corner of the space cannot be built.
    """
    for spec in extreme_students(study):
        cost_of(spec, size=study.data.size)
    wanted = [one for one in comparisons_of(study) if _needs_channels(one) or one.stride not in (None, "every")]
    if not wanted:
        return
    assert isinstance(study.teacher, TeacherConfig), "study files refuse hidden maps of other teachers"
    from kdsearch.models.teacher import map_channels  # brings torch

    given = map_channels(study.teacher, size=study.data.size)
    for one in wanted:
        _require(study, one, given)


def _needs_channels(one: Comparison) -> bool:
    return one.path == "hidden" and one.loss not in ANY_CHANNELS


def _require(study: StudyConfig, one: Comparison, given: dict[int, int]) -> None:
    path, stride = one.path, one.stride
    assert stride != "every", "that is of whatever both have"
    if stride is not None and stride not in given:
        raise StudyFileError(
            f"distillation: {path} compares maps of stride {stride}, and the teacher has them of "
            f"{_listed(given)}; write one of those, or another teacher.encoder or encoder_depth"
        )
    teacher = given[stride or max(given)]
    for spec in extreme_students(study):
        own = map_channels_of(spec)
        if stride is not None and stride not in own:
            raise StudyFileError(
                f"distillation: {path} compares maps of stride {stride}, and a {spec.describe()} has them of "
                f"{_listed(own)}; write one of those, or search deeper students"
            )
        student = own[stride or max(own)]
        if _needs_channels(one) and student != teacher:
            raise StudyFileError(
                f"distillation: hidden {one.loss} compares maps channel by channel, but the teacher's have {teacher} "
                f"channels and those of a {spec.describe()} {student}; write attention or regressor, loss "
                f"{' or '.join(sorted(ANY_CHANNELS))}, or search students with as many channels"
            )


def _listed(known: dict[int, int]) -> str:
    return ", ".join(str(stride) for stride in sorted(known))
