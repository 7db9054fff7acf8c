"""Schema numbers of what is stored, and the steps that bring older content up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kdsearch.errors import KdsearchError

Content: TypeAlias = dict[str, Any]
"""JSON."""
KEY = "schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """One kind of stored content."""

    what: str
    """Its name in messages, such as ``recipe``."""
    upgrades: tuple[Callable[[Content], Content], ...]
    """The step at position n turns content of schema n into that of n + 1; content without a number has 0."""

    @property
    def number(self) -> int:
        """Of what this release writes."""
        return len(self.upgrades)

    def stamped(self, content: Mapping[str, Any]) -> Content:
        """The content with its schema number."""
        return {KEY: self.number, **content}

    def upgraded(self, content: Mapping[str, Any]) -> Content:
        """The content as this release writes it, without its number; raises KdsearchError for a newer one's."""
        found = dict(content)
        written = found.pop(KEY, 0)
        if type(written) is not int or written < 0:
            raise KdsearchError(f"{self.what}: schema: must be a whole number, got {written!r}")
        if written > self.number:
            raise KdsearchError(
                f"{self.what}: written by a newer release of kdsearch (schema {written}, this one reads up to "
                f"{self.number}); install that release"
            )
        for upgrade in self.upgrades[written:]:
            found = upgrade(found)
        return found


def unchanged(content: Content) -> Content:
    """The step to the first schema with a number, which changed nothing else."""
    return content
