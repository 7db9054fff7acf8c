"""Schema numbers of stored content, and upgrades from older schemas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kdsearch.errors import KdsearchError

Content: TypeAlias = dict[str, Any]
"""A JSON object."""
KEY = "schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """One kind of stored content."""

    what: str
    """Its name in messages, such as ``recipe``."""
    upgrades: tuple[Callable[[Content], Content], ...]
    """The step at position n upgrades schema n to n + 1; content without a number has schema 0."""

    @property
    def number(self) -> int:
        """The schema that this release writes."""
        return len(self.upgrades)

    def stamped(self, content: Mapping[str, Any]) -> Content:
        """Returns the content with its schema number."""
        return {KEY: self.number, **content}

    def upgraded(self, content: Mapping[str, Any]) -> Content:
        """Upgrades content and removes its number; raises KdsearchError if a newer release wrote it."""
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
    """The upgrade to a schema that changed nothing but the number."""
    return content
