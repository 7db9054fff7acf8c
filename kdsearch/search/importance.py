"""The importance of settings for Dice."""

from __future__ import annotations

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from kdsearch.config.study import StudyConfig

LEAST_TRIALS = 8
"""With fewer finished trials, importance cannot be estimated."""


def importances_of(optuna_study: optuna.Study, study: StudyConfig) -> dict[str, float]:
    """The fraction of the variance of Dice, 0-1, that each searched setting explains.

    Uses Optuna's fANOVA (Hutter et al. 2014) on finished trials, for settings that all recipes have. Empty if there are
    too few trials or if Dice does not vary.
    """
    if "dice" not in study.search.objectives:
        return {}
    index = study.search.objectives.index("dice")
    finished = optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < LEAST_TRIALS or len({trial.values[index] for trial in finished}) == 1:
        return {}
    return get_param_importances(
        optuna_study,
        evaluator=FanovaImportanceEvaluator(seed=study.seed),
        target=lambda trial: trial.values[index],
    )
