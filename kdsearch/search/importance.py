"""The importance of settings for Dice."""

from __future__ import annotations

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdsearch.config.renamed import name_up_to_date
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
    renamed = optuna.create_study(directions=optuna_study.directions)
    renamed.add_trials([_renamed(trial) for trial in finished])
    return get_param_importances(
        renamed,
        evaluator=FanovaImportanceEvaluator(seed=study.seed),
        target=lambda trial: trial.values[index],
    )


def _renamed(trial: FrozenTrial) -> FrozenTrial:
    """The trial with today's names of its settings."""
    return create_trial(
        values=trial.values,
        params={name_up_to_date(name): value for name, value in trial.params.items()},
        distributions={name_up_to_date(name): value for name, value in trial.distributions.items()},
    )
