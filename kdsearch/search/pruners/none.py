"""No pruning."""

from __future__ import annotations

from kdsearch.search.pruners.course import Course


class NoPruner:
    """Lets every trial train to its end."""

    def observe(self, course: Course) -> None:
        """Takes no notice."""

    def stops(self, course: Course) -> str:  # noqa: ARG002 - the contract's name
        """Never."""
        return ""
