"""What a machine may lack: tests of it are skipped, and fail where ``KDSEARCH_REQUIRE`` names it."""

from __future__ import annotations

import os
from typing import Literal, NoReturn

import pytest


def absent(kind: Literal["postgres", "browser", "realdata"], reason: str) -> NoReturn:
    """Skips the test, or fails it where ``KDSEARCH_REQUIRE`` holds the kind."""
    if kind in os.environ.get("KDSEARCH_REQUIRE", "").split(","):
        pytest.fail(f"KDSEARCH_REQUIRE names {kind}, but {reason}", pytrace=False)
    pytest.skip(reason)
