"""What ``--help`` says, and how fast."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdsearch.cli.parser import GROUPS, build_parser

STUDIES = Path(__file__).parents[2] / "studies"
COMMANDS = [name for names in GROUPS.values() for name in names]


def test_help_answers_in_under_half_a_second(place):
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        command = [sys.executable, "-m", "kdsearch", "--help"]
        text = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stdout
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 0.5
    assert all(group in text for group in ("Search:", "Results:", "Ship:", "Maintenance:"))


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda words: " ".join(words) or "top")
def test_help_fits_80_columns_and_has_an_example_that_parses(shell, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    text = shell(*command, "--help").out
    assert max(map(len, text.splitlines())) <= 80
    examples = [line.split(">")[0].split()[1:] for line in text.splitlines() if line.startswith("  kdsearch ")]
    assert bool(examples) == bool(command)
    for words in examples:
        assert [build_parser().parse_args(words).command] == command


def test_every_option_with_a_value_says_its_default(shell):
    for command in COMMANDS:
        options = re.split(r"\n  (?=-)", shell(command, "--help").out.partition("examples:")[0])
        takes_value = [option for option in options if re.match(r"(-\w, )?--[\w-]+ [A-Z\[{]", option)]
        if command == "pick":
            takes_value = [one for one in takes_value if re.match("--(data|out|int8-bound)", one)]  # others form groups
        for option in takes_value:
            assert re.search(r"\((default: .+|required)\)", " ".join(option.split())), (command, option)


def test_help_imports_nothing_heavy(place):
    heavy = ("torch", "mlflow", "optuna", "rich", "pydantic")
    code = f"import sys, kdsearch.cli.parser as p; p.build_parser(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_names_only_shipped_studies_that_exist(shell):
    text = "".join(shell(*command, "--help").out for command in [[], *([name] for name in COMMANDS)])
    named = set(re.findall(r"studies/([\w-]+\.yaml)", text))
    assert named
    assert {name for name in named if not (STUDIES / name).is_file()} == set()
