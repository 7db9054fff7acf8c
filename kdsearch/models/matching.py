"""Whether the networks of a study can be compared as its paths ask."""

from __future__ import annotations

from kdsearch.config.space import compared_by, extreme_students
from kdsearch.config.study import StudyConfig
from kdsearch.errors import StudyFileError


def require_equal_channels(study: StudyConfig) -> None:
    """Raises StudyFileError where path ``hidden`` would compare maps of unequal channels."""
    if "hidden" not in compared_by(study):
        return
    from kdsearch.models.teacher import hidden_channels  # brings torch, which only this path needs

    wanted = hidden_channels(study.teacher, size=study.data.size)
    for spec in extreme_students(study):
        got = spec.channels[-1]
        if got != wanted:
            raise StudyFileError(
                f"distillation: hidden compares the encoders' outputs channel by channel, but the teacher's has "
                f"{wanted} channels and that of a {spec.describe()} {got}; write attention or regressor, or search "
                "students with as many channels"
            )
