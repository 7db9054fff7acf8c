"""README and docs: their commands exist and run, their Python compiles, their settings are the models'."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kdsearch.cli.main import main
from kdsearch.cli.parser import build_parser
from kdsearch.config.load import load_study
from kdsearch.config.reference import reference
from tests.stored.write import write_images

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
STARTED = re.compile(r"kdsearch [a-z]+( |$)")


def _blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCED.findall(page.read_text(encoding="utf-8")) if kind == language]


def _commands(page: Path) -> list[list[str]]:
    """Every command of kdsearch in the page's blocks, as words."""
    lines = [part.strip() for block in _blocks(page, "") for line in block.splitlines() for part in line.split("&&")]
    return [shlex.split(line, comments=True)[1:] for line in lines if STARTED.match(line)]


def test_pages_hold_commands():
    assert sum(len(_commands(page)) for page in PAGES) >= 19


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_that_the_parser_takes(page):
    for words in _commands(page):
        assert build_parser().parse_args(words).command == words[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_compiles(page):
    for block in _blocks(page, "python"):
        assert compile(block, page.name, "exec") is not None


def test_settings_are_the_models():
    text = (ROOT / "docs" / "study-file.md").read_text(encoding="utf-8")
    generated = text[
        text.index("<!-- settings: kdsearch schema --markdown -->\n") : text.index("\n<!-- end of settings")
    ]
    assert generated.partition("\n")[2] == reference(), (
        "put the output of kdsearch schema --markdown between the markers"
    )


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_pages_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.slow
def test_tutorial_runs_as_it_is_written_on_fewer_images_and_epochs(tmp_path, monkeypatch, capsys):
    """The commands and the study file are the page's; only counts and the trial's number are others."""
    page = ROOT / "docs" / "tutorial.md"
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
    for words in _commands(page):
        if words[0] == "ui":
            continue
        typed = [word.replace("50k", "1M").replace("mystudy-7", next(_picked(), "")) for word in words]
        assert main(typed) == 0, (typed, capsys.readouterr())
    assert Path("mystudy-report.html").is_file()
    assert any(Path("masks").iterdir())


def _picked():
    return (path.name for path in Path("picked").glob("mystudy-*"))
