"""A shell for tests of commands."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from _pytest.capture import CaptureResult

from kdsearch.cli.main import main


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands in this process, so that libraries are imported once."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, code: int = 0) -> CaptureResult[str]:
        """What the command printed."""
        try:
            found = main(arguments)
        except SystemExit as stop:  # argparse
            found = int(stop.code or 0)
        said = self.capsys.readouterr()
        assert found == code, said.out + said.err
        return said
