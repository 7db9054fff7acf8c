"""What mattered for Dice."""

from __future__ import annotations

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdsearch.config.renamed import name_up_to_date
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
    renamed = optuna.create_study(directions=optuna_study.directions)
    renamed.add_trials([_renamed(trial) for trial in finished])
    return get_param_importances(
        renamed,
        evaluator=FanovaImportanceEvaluator(seed=study.seed),
        target=lambda trial: trial.values[place],
    )


def _renamed(trial: FrozenTrial) -> FrozenTrial:
    """The trial with today's names of its settings."""
    return create_trial(
        values=trial.values,
        params={name_up_to_date(name): value for name, value in trial.params.items()},
        distributions={name_up_to_date(name): value for name, value in trial.distributions.items()},
    )
