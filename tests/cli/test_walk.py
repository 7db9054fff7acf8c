"""Walking the front with the arrow keys."""

from __future__ import annotations

import io
import itertools
import re

import pytest
import readchar
from rich.console import Console

from kdsearch.cli.walk import walk
from kdsearch.config.study import StudyConfig
from tests.front.students import student

MEMBERS = [student(4, 0.5, 100), student(2, 0.6, 1_000), student(9, 0.7, 10_000)]
UP, DOWN, ENTER = readchar.key.UP, readchar.key.DOWN, readchar.key.ENTER


STUDY = StudyConfig.model_validate_json('{"name": "s", "student": {"width": {"int": [2, 32]}}}')


def _walk(keys, tmp_path, members=MEMBERS, height=60, width=100):
    pressed = iter(keys)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, height=height)
    number = walk(members, study=STUDY, home=tmp_path, console=console, read=lambda: next(pressed))
    return number, screen.getvalue()


@pytest.mark.parametrize(
    ("keys", "number"),
    [
        ([ENTER], 2),
        ([DOWN, ENTER], 9),
        ([UP, ENTER], 4),
        ([UP, UP, UP, ENTER], 4),
        (["x", "j", "j", "k", ENTER], 2),
        (["q"], None),
        ([readchar.key.ESC + "q"], None),
        ([readchar.key.CTRL_C], None),
    ],
)
def test_arrows_walk_and_enter_picks(tmp_path, keys, number):
    assert _walk(keys, tmp_path)[0] == number


def test_recipe_and_overlay_of_the_student_are_shown(tmp_path):
    picture = tmp_path / "studies" / "s" / "overlays" / "00009.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"")
    _, screen = _walk([DOWN, ENTER], tmp_path)
    assert "student: width 16\n" in screen.replace("\r", "").replace(" \n", "\n")
    assert "overlays: written when the student is picked" in screen
    assert "00009.png" in screen.replace("\r", "").replace("\n", ""), "a long path wraps"


def test_interrupt_leaves(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    assert walk(MEMBERS, study=STUDY, home=tmp_path, console=Console(file=io.StringIO()), read=interrupted) is None


def test_only_the_students_around_are_shown_where_the_terminal_is_low(tmp_path):
    members = [student(number, 0.5, 100 + number) for number in range(40)]
    number, screen = _walk([DOWN, ENTER], tmp_path, members=members, height=20)
    assert number == 21
    assert _windows(screen) == [(16, 26), (17, 27)]
    assert screen.rpartition("Pareto front, ")[2].count("\n") < 20
    for keys, window, end in ((UP, (1, 11), 0), (DOWN, (30, 40), 39)):
        number, screen = _walk([keys] * 40 + [ENTER], tmp_path, members=members, height=20)
        assert (number, _windows(screen)[-1]) == (end, window)


def test_cursor_and_keys_stay_on_a_small_screen(tmp_path):
    members = [student(number, 0.5, 100 + number, path="regressor") for number in range(40)]
    for keys, number in ((UP, 0), (DOWN, 39)):
        _, screen = _walk([keys] * 40 + ["q"], tmp_path, members=members, height=12, width=50)
        last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.rpartition("↑ ↓ move")[2])
        assert re.search(rf"▶ +│ {number} ", last)
        assert last.count("\n") < 12


def _windows(screen):
    """Which students were shown, one after the other."""
    shown = [(int(first), int(last)) for first, last in re.findall(r", (\d+) to (\d+) of 40", screen)]
    return [window for window, _ in itertools.groupby(shown)]
