"""README and docs: commands parse, study files validate, code compiles, links resolve, and worked examples run."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kdsearch.cli.main import main
from kdsearch.cli.parser import build_parser
from kdsearch.config.load import load_study
from kdsearch.config.networks import OnnxTeacher
from kdsearch.config.reference import parts
from kdsearch.config.task import square
from kdsearch.models.costs import require_comparable, require_possible_limits
from kdsearch.models.given_teachers import OnnxNetwork
from tests.settings_pages import PAGES as SETTINGS
from tests.settings_pages import sections_of, with_settings
from tests.stored.write import write_images

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SHELL = ("bash", "console")
LANGUAGES = {*SHELL, "yaml", "python", "text", "diff"}
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")
EXAMPLE = "contributing/add-a-loss.md"
"""The page whose study file needs the loss that it adds."""
MADE_BY_RUNS = ("mlflow/mlflow.db", "mlflow/artifacts/")
README_LINES = 130
FEWEST_COMMANDS = 80


def _of_page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=_of_page)


def _blocks(page: Path, *languages: str) -> list[str]:
    return [text for kind, text in FENCED.findall(page.read_text(encoding="utf-8")) if kind in languages]


def _commands(page: Path) -> list[list[str]]:
    """Every command of kdsearch in the page's shell blocks, as words, wherever in a line it is."""
    lines = [line for block in _blocks(page, *SHELL) for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines for part in re.split(r"&&|;|\|", line) if (words := _command(part))]


def _command(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    if "kdsearch" not in words or words[0] in ("pip", "git"):
        return []
    words = words[words.index("kdsearch") + 1 :]
    return words[: next((place for place, word in enumerate(words) if word.startswith((">", "2>"))), len(words))]


def _options() -> dict[str, set[str]]:
    """The options of each command, without those that are only there to name their successor."""
    action = next(one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction))
    return {
        name: {option for one in parser._actions if one.help != argparse.SUPPRESS for option in one.option_strings}
        for name, parser in action.choices.items()
    }


def test_pages_hold_commands():
    assert sum(len(_commands(page)) for page in PAGES) >= FEWEST_COMMANDS


@every_page
def test_every_command_parses(page):
    for words in _commands(page):
        assert build_parser().parse_args(words).command == words[0], words


@every_page
def test_commands_in_sentences_have_the_options_that_they_name(page):
    options = _options()
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for command, rest in re.findall(r"`kdsearch ([a-z]+)([^`]*)`", text):
        assert command in options, command
        assert set(OPTION.findall(rest)) <= options[command], (command, rest)


def test_command_line_page_names_every_command_and_option_and_no_others():
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8") + (DOCS / "how-to" / "pick.md").read_text(
        encoding="utf-8"
    )
    options = _options()
    known = {name for names in options.values() for name in names if name.startswith("--")}
    named = {name for name in OPTION.findall(text) if name.startswith("--")}
    assert known - named <= {"--help"}
    assert named - known == {"--print-completion"}, "an option without a command"
    assert all(f"`kdsearch {command} " in text or f"`kdsearch {command}`" in text for command in options)


@every_page
def test_every_code_block_names_its_language(page):
    found = [kind for kind, _ in FENCED.findall(page.read_text(encoding="utf-8"))]
    assert set(found) <= LANGUAGES, found


@every_page
def test_every_python_block_compiles(page):
    for block in _blocks(page, "python"):
        assert compile(block, page.name, "exec") is not None


@every_page
def test_every_shell_block_is_a_script(page):
    for block in _blocks(page, *SHELL):
        checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert not checked.stderr, (block, checked.stderr)


@every_page
def test_every_study_file_is_valid(page, tmp_path):
    if _of_page(page).endswith(EXAMPLE):
        pytest.skip("its loss does not exist before the page's changes; see the test of the page")
    for number, block in enumerate(_blocks(page, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        study = load_study(file)
        require_comparable(study)
        require_possible_limits(study)


@every_page
def test_links_lead_to_a_page_and_a_heading_that_exist(page):
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", text):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked), (target, anchor)


def _anchors(page: Path) -> set[str]:
    """As Python-Markdown makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", sorted(SETTINGS.glob("*.md")), ids=lambda page: page.stem)
def test_settings_are_the_models(page):
    text = page.read_text(encoding="utf-8")
    assert text == with_settings(text), "write them with: python -m tests.settings_pages"


def test_every_setting_is_on_one_page():
    names = [name for page in SETTINGS.glob("*.md") for name in sections_of(page.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(parts())


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert [name for name in missing if f": {name}\n" not in navigation and f"- {name}\n" not in navigation] == []


def test_code_mentions_only_pages_that_exist():
    files = [path for folder in ("kdsearch", "tests", "studies") for path in (ROOT / folder).rglob("*.*")]
    texts = {path: path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".yaml")}
    missing = {
        (path.relative_to(ROOT).as_posix(), page)
        for path, text in texts.items()
        for page in re.findall(r"docs/[a-z/-]+\.md", text)
        if not (ROOT / page).exists()
    }
    assert not missing


@every_page
def test_paths_and_names_of_the_code_exist(page):
    """Paths in backticks, and in CONTRIBUTING's map the names of tables and functions."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for path in re.findall(r"`((?:kdsearch|tests|studies|docs|mlflow)/[\w./-]+)`", text):
        assert (ROOT / path).exists() or path in MADE_BY_RUNS, path
    if page.name == "CONTRIBUTING.md":
        code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "kdsearch").rglob("*.py"))
        for name in re.findall(r"\| `(\w+)`(?:, `(\w+)`)? \| `tests", text):
            assert all(re.search(rf"^(?:def )?{one}\b[(:]", code, re.MULTILINE) for one in filter(None, name)), name


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.slow
def test_exported_network_of_the_page_is_a_teacher(tmp_path, monkeypatch):
    (program,) = _blocks(DOCS / "how-to" / "onnx-teacher.md", "python")
    own = "torch.nn.Conv2d(1, 1, 3, padding=1).eval()"
    monkeypatch.chdir(tmp_path)
    exec(compile(program.replace("network = ...", f"network = {own}"), "export.py", "exec"), {})
    teacher = OnnxTeacher(kind="onnx", file="best.onnx", size=256)
    network = OnnxNetwork(teacher, Path("best.onnx").read_bytes(), square(64))
    assert network.outputs(torch.zeros(3, 1, 64, 64)).logits.shape == (3, 1, 64, 64)


@pytest.mark.slow
def test_loss_of_the_page_can_be_added_as_it_is_written(tmp_path):
    """The page's changes are applied to a copy of the package, whose tests then pass and whose study then runs."""
    page = DOCS / EXAMPLE
    for name in ("kdsearch", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "home", "*.onnx"))
    change = "".join(_blocks(page, "diff"))
    subprocess.run(["git", "apply", "-"], input=change, text=True, cwd=tmp_path, check=True)
    (study,) = _blocks(page, "yaml")
    (tmp_path / "with-cosine.yaml").write_text(study, encoding="utf-8")
    run = [sys.executable, "-m", "kdsearch", "run", "with-cosine.yaml"]
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/distill/test_losses.py"]
    for command in (run, test):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "cosine" in done.stdout or "passed" in done.stdout


@pytest.mark.slow
def test_tutorial_runs_as_it_is_written_on_fewer_images_and_epochs(tmp_path, monkeypatch, capsys):
    """Commands and study file are the page's, with smaller numbers; the confirmation is only planned."""
    page = DOCS / "get-started" / "own-images.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("KDSEARCH_HOME", raising=False)
    write_images(Path("mydata"))
    write_images(Path("otherhospital"), seed=8)
    (study,) = _blocks(page, "yaml")
    quick = study.replace("epochs: 40", "epochs: 1").replace("trials: 40", "trials: 3").replace("size: 64", "size: 32")
    Path("mystudy.yaml").write_text(quick.replace("{epochs: 1}", "{epochs: 1}\n  weights: none"), encoding="utf-8")
    assert load_study(Path("mystudy.yaml")).search.trials == 3
    Path("newimages").symlink_to("mydata/images")
    done = []
    for words in _commands(page):
        if words[0] == "ui":
            continue
        picked = next(_picked(), "")
        typed = [word.replace("50k", "1M").replace("mystudy-7", picked).replace("60", "4") for word in words]
        assert main([*typed, *(["--dry-run"] if words[0] == "confirm" else [])]) == 0, (typed, capsys.readouterr())
        done.append(words[0])
    assert {"check", "data", "run", "front", "report", "pick", "predict", "evaluate", "bench", "confirm"} <= set(done)
    assert Path("mystudy-report.html").is_file()
    assert any(Path("masks").iterdir())


def _picked() -> Iterator[str]:
    return (path.name for path in Path("picked").glob("mystudy-*"))
