"""What the command line does before any command."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.table import Table

from kdsearch.cli.main import USER_ERROR, main
from kdsearch.cli.terminal import print_anything, terminal
from kdsearch.environment import SETTINGS
from tests.tiny import TINY


def test_windows_is_refused_in_a_sentence(capsys):
    assert main(["doctor"], platform="win32") == USER_ERROR
    assert (
        "kdsearch doctor: Windows is not supported; run kdsearch in WSL, on Linux or on macOS"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("name", "usual"), SETTINGS)
def test_environment_is_set_before_torch_is_loaded_unless_the_user_says_otherwise(name, usual):
    code = (
        "import os, sys; from kdsearch.cli.main import main; before = 'torch' in sys.modules\n"
        f"main(['schema']); print(before, os.environ['{name}'], file=sys.stderr)"
    )
    for given, kept in ({}, usual), ({name: "7"}, "7"):
        environment = {key: value for key, value in os.environ.items() if key != name} | given
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr.split()[-2:] == ["False", kept]


def test_warnings_of_a_locked_test_go_to_its_console():
    code = (
        "import logging; from kdsearch.cli.main import main\n"
        "main(['test', 'absent.yaml', '--trial', '0']); print(type(logging.getLogger().handlers[0]).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "RichHandler"


def test_what_the_operating_system_refuses_is_one_line_with_the_path(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (tmp_path / "home").write_text("a file where a folder should be")
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    assert main(["data", "tiny.yaml"]) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kdsearch data: ")
    assert "home" in line


def test_brackets_and_colons_in_names_are_printed_as_they_are(tmp_path, capsys, monkeypatch):
    """Rich would take them for markup, which may be an error, or for emoji."""
    monkeypatch.chdir(tmp_path)
    name = "[bold]:x:[/red].yaml"
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(TINY, encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["check", name]) == 0
    assert f"{name} is valid." in capsys.readouterr().out


def test_console_of_commands_takes_nothing_for_markup(capsys):
    console = terminal()
    console.print("[/red] :x: [bold]a[/]")
    table = Table("[/red]", title=":x:")
    table.add_row("[/red]")
    console.print(table)
    said = capsys.readouterr().out
    assert "[/red] :x: [bold]a[/]" in said
    assert said.count("[/red]") == 3


@pytest.mark.parametrize(("encoding", "sign"), [("ascii", "x"), ("latin-1", "\u00d7"), ("utf-8", "\u00d7")])
def test_letters_that_the_output_lacks_are_spelt_out(encoding, sign):
    stream = io.TextIOWrapper(raw := io.BytesIO(), encoding=encoding)
    print_anything([stream, None])
    stream.write("32\u00d732 \u2264 5 \u4e2d")
    stream.flush()
    assert raw.getvalue().decode(encoding).startswith(f"32{sign}32 ")


def test_names_that_are_not_utf_8_are_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9.yaml")
    (tmp_path / name).write_text(TINY, encoding="utf-8")
    assert main(["check", name]) == 0
    assert "caf\\udce9.yaml is valid." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("ui", "--port", "99999"), "argument --port: '99999' is not a port; write a number from 1 to 65535"),
        (("ui", "--port", "0"), "argument --port: '0' is not a port"),
        (("run", "a.yaml", "--trials", "9" * 5000), "argument --trials: '9999999999999999999999999999999999999999"),
        (("run", "a.yaml", "--workers", "\u00b2"), "argument --workers: '\u00b2' is not a whole number from 1 to"),
        (("test", "a.yaml", "--trial=-1"), "argument --trial: '-1' is not the number of a trial"),
    ],
)
def test_number_that_is_none_is_refused_by_name(words, problem, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("tracking_uri: mlruns", "tracking_uri: mlruns: must be the URL of a database or of a server"),
        ("tracking_uri: 'http://localhost:99999'", "2: tracking_uri: port out of range"),
        ("search: {limits: {params: 1}}", "search.limits.params: the smallest student of the space has "),
        (
            "search: {checkpoint_url: '~nosuchuser/x'}",
            "search.checkpoint_url: ~nosuchuser/x: there is no user of that name",
        ),
    ],
)
def test_check_refuses_what_run_would(tmp_path, capsys, monkeypatch, settings, problem):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "a.yaml").write_text(f"name: a\n{settings}\n", encoding="utf-8")
    assert main(["check", "a.yaml"]) == USER_ERROR
    assert problem in capsys.readouterr().err


def test_check_of_places_opens_them_and_makes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "a.yaml").write_text("name: a\n", encoding="utf-8")
    assert main(["check", "a.yaml", "--places"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]
    capsys.readouterr()
    (tmp_path / "mlflow").write_text("in the way")
    assert main(["check", "a.yaml", "--places"]) == USER_ERROR
    assert "mlflow is not a folder; move it, or name another place" in capsys.readouterr().err
    (tmp_path / "a.yaml").write_text("name: a\ntracking_uri: postgresql://127.0.0.1:9/mlflow\n", encoding="utf-8")
    assert main(["check", "a.yaml", "--places"]) == USER_ERROR
    assert "tracking: postgresql://127.0.0.1:9/mlflow does not answer" in capsys.readouterr().err
