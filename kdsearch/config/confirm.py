"""The ``confirm`` section: which students are trained again, how often, and what is asked of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kdsearch.config.ranges import Section, training_rule

FOLDS = 5


class ConfirmConfig(Section):
    """What ``kdsearch confirm`` plans; it takes no part in the search, so that a finished study may change it."""

    members: Annotated[int, Field(ge=1, le=20)] = 6
    """Most members of the front that are confirmed, one of each size class (half a decade of parameters)."""
    folds: Annotated[int, Field(ge=2, le=20)] = FOLDS
    """Folds that the training and validation images are shared out to, by group and label; each is scored once, by
    networks trained on the others. The locked test images take no part."""
    repetitions: Annotated[int, Field(ge=1, le=20)] = 1
    """How often all of it is done, each time with other folds and seeds. One is a pilot; claims want three."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """The margin: a smaller student is as good where it is worse by less Dice than this (0.02 are 2 points)."""
    leave_one_source_out: bool = False
    """Whether each fold is one source's images, to see how students fare at a place they have not learnt from."""
    racing: bool = False
    """Whether a member that is worse than one no larger beyond doubt is dropped after a fold; its twin with it."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seeds folds and trainings."""

    @training_rule
    def _sources_are_folds_once(self) -> ConfirmConfig:
        if self.leave_one_source_out and self.folds != FOLDS:
            raise ValueError("leave_one_source_out and folds exclude each other: there are as many folds as sources")
        return self
