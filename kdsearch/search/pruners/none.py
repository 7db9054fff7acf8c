"""No pruning."""

from __future__ import annotations

from kdsearch.search.pruners.learning_curve import LearningCurve


class NoPruner:
    """Lets every trial train to its end."""

    def observe(self, curve: LearningCurve) -> None:
        """Takes no notice."""

    def stops(self, curve: LearningCurve) -> str:  # noqa: ARG002 - the contract's name
        """Never."""
        return ""
