"""What the command line does before any command."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from kdsearch.cli.main import USER_ERROR, main
from kdsearch.cli.parser import parse
from kdsearch.cli.terminal import print_anything, say, say_command, say_labeled, terminal
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


def test_error_of_the_operating_system_is_one_line_with_the_path(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (tmp_path / "home").write_text("a file where a folder should be")
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    assert main(["data", "tiny.yaml"]) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kdsearch data: ")
    assert "home" in line


def test_brackets_and_colons_in_names_are_printed_as_they_are(tmp_path, capsys, monkeypatch):
    """Rich would read them as markup or emoji."""
    monkeypatch.chdir(tmp_path)
    name = "[bold]:x:[/red].yaml"
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(TINY, encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["check", name]) == 0
    assert f"{name} is valid." in capsys.readouterr().out


def test_console_ignores_markup(capsys):
    console = terminal()
    console.print("[/red] :x: [bold]a[/]")
    table = Table("[/red]", title=":x:")
    table.add_row("[/red]")
    console.print(table)
    said = capsys.readouterr().out
    assert "[/red] :x: [bold]a[/]" in said
    assert said.count("[/red]") == 3


@pytest.mark.parametrize(("encoding", "sign"), [("ascii", "x"), ("latin-1", "\u00d7"), ("utf-8", "\u00d7")])
def test_characters_missing_in_the_output_are_spelled_out(encoding, sign):
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
def test_invalid_number_is_refused_by_name(words, problem, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("tracking_uri: mlruns", "tracking_uri: mlruns: must be the URL of a database or a server"),
        ("tracking_uri: 'http://localhost:99999'", "2: tracking_uri: port out of range"),
        ("search: {limits: {params: 1}}", "search.limits.params: the smallest student of the search space has "),
        ("search: {checkpoint_url: '~nosuchuser/x'}", "search.checkpoint_url: ~nosuchuser/x: this user does not exist"),
    ],
)
def test_check_refuses_what_run_would(tmp_path, capsys, monkeypatch, settings, problem):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "a.yaml").write_text(f"name: a\n{settings}\n", encoding="utf-8")
    assert main(["check", "a.yaml"]) == USER_ERROR
    assert problem in capsys.readouterr().err


def test_check_opens_databases_and_creates_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "a.yaml").write_text("name: a\n", encoding="utf-8")
    assert main(["check", "a.yaml", "--places"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]
    capsys.readouterr()
    (tmp_path / "mlflow").write_text("in the way")
    assert main(["check", "a.yaml", "--places"]) == USER_ERROR
    assert "mlflow is not a folder; move it, or choose another path" in capsys.readouterr().err
    (tmp_path / "a.yaml").write_text("name: a\ntracking_uri: postgresql://127.0.0.1:9/mlflow\n", encoding="utf-8")
    assert main(["check", "a.yaml", "--places"]) == USER_ERROR
    assert "tracking: postgresql://127.0.0.1:9/mlflow does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ("", ["a warning", "an error"]),
        ("quiet=True", ["an error"]),
        ("verbose=True", ["kdsearch.x: details", "kdsearch.x: a warning", "kdsearch.x: an error"]),
    ],
)
def test_log_shows_warnings_errors_only_or_everything(flags, shown):
    code = (
        "import logging; from kdsearch.cli.terminal import show_log, terminal\n"
        f"show_log(terminal(), {flags}); logger = logging.getLogger('kdsearch.x')\n"
        "logger.debug('details'); logger.warning('a warning'); logger.error('an error')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [any(text in line for line in lines) for text in shown] == [True] * len(shown)
    assert len(lines) == len(shown)


PROSE = "Prose is easier to read if it is wrapped between words."


@pytest.mark.parametrize(("interactive", "lines"), [(True, 3), (False, 1)])
def test_prose_is_wrapped_in_a_terminal_only_and_commands_never(interactive, lines):
    for show, expected in ((say, lines), (say_command, 1)):
        console = Console(file=io.StringIO(), force_terminal=interactive, width=24)
        show(console, PROSE)
        assert len(console.file.getvalue().splitlines()) == expected
        assert " ".join(console.file.getvalue().split()) == PROSE


def test_prose_after_a_label_is_indented_in_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=40, color_system=None)
    say_labeled(console, "  seed", PROSE)
    first, *rest = console.file.getvalue().rstrip().splitlines()
    assert first.startswith("  seed      Prose is")
    assert rest
    assert all(line.startswith(" " * 12) for line in rest)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rnu pareto", "kdsearch: error: no command 'rnu'; did you mean 'run'?"),
        ("xyz", "no command 'xyz'; list the commands with: kdsearch --help"),
        ("run pareto --trails 3", "kdsearch run: error: unrecognized arguments: --trails 3; did you mean '--trials'?"),
        ("run pareto --tri 3", "unrecognized arguments: --tri 3; did you mean '--trials'?"),
        ("run pareto --trials 3 more.yaml", "unrecognized arguments: more.yaml"),
        ("predict picked a=b --what", "unrecognized arguments: --what"),
    ],
)
def test_mistyped_command_or_option_gets_a_suggestion(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == USER_ERROR
    assert message in capsys.readouterr().err


def test_settings_may_follow_options():
    options = parse(["run", "a.yaml", "seed=1", "--trials", "3", "name=b", "--data", "x=y", "training.epochs=2"])
    assert options.settings == ["seed=1", "name=b", "training.epochs=2"]
    assert (options.trials, options.data) == (3, ["x=y"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_knows_commands_and_options(shell, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(word in script for word in ("evaluate", "smallest-within", "kdsearch"))


def test_studies_are_listed_and_copied_with_their_schema(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["studies"]) == 0
    assert "pareto          First study: simulated ultrasound" in capsys.readouterr().out
    assert main(["studies", "--copy", "pareto"]) == 0
    assert main(["check", "studies/pareto.yaml"]) == 0
    assert (tmp_path / "studies" / "study.schema.json").is_file()
    (tmp_path / "studies" / "pareto.yaml").write_text("mine")
    assert main(["studies", "--copy", "pareto"]) == USER_ERROR
    assert "studies/pareto.yaml: exists already; name another file with --out" in capsys.readouterr().err
    assert (tmp_path / "studies" / "pareto.yaml").read_text() == "mine"
    assert main(["studies", "--copy", "pareta"]) == USER_ERROR
    assert "--copy pareta: no such study; did you mean 'pareto'?" in capsys.readouterr().err
