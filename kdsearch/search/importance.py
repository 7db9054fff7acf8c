"""What mattered for Dice."""

from __future__ import annotations

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from kdsearch.config.study import StudyConfig

LEAST_TRIALS = 8
"""Fewer finished trials than this say nothing of what mattered."""


def importances_of(optuna_study: optuna.Study, study: StudyConfig) -> dict[str, float]:
    """How much of the spread of Dice each searched setting that every recipe has explains, 0-1.

    Optuna's fANOVA (Hutter et al. 2014) over finished trials; empty where there are too few or Dice does not vary.
    """
    if "dice" not in study.search.objectives:
        return {}
    place = study.search.objectives.index("dice")
    finished = optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < LEAST_TRIALS or len({trial.values[place] for trial in finished}) == 1:
        return {}
    return get_param_importances(
        optuna_study,
        evaluator=FanovaImportanceEvaluator(seed=study.seed),
        target=lambda trial: trial.values[place],
    )
