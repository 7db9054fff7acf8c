"""For any command line and any study file, kdsearch either works or raises a KdsearchError."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import types
import typing
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from kdsearch.cli.parser import build_parser
from kdsearch.cli.terminal import print_anything
from kdsearch.config.ranges import Choice, FloatRange, IntRange
from kdsearch.config.study import StudyConfig
from kdsearch.data.folder import read_folder
from kdsearch.errors import KdsearchError
from tests.tiny import TINY

pytestmark = pytest.mark.slow

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["none", "None", "on", "1e-3", "0x1", ".inf", ".nan", "~", "~nosuchuser/x", "$HOME", "$", "../x"]),
    st.sampled_from(
        ["[/red]", ":x:", "a b", "package:..a", "package:a.b", "package:__main__", "file:x", "file:~nobody"]
    ),
    st.sampled_from(["sqlite://", "sqlite:///x.db?a=b", "http://h:99999", "http://[", "postgresql://h:x/y", "mlruns"]),
)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-3, 300),
    st.floats(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30, 10**400, 1e300, 1e-300, 5e-324]),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
RANGES = st.one_of(
    st.fixed_dictionaries(
        {"int": st.lists(NUMBERS, min_size=2, max_size=2)}, optional={"log": st.booleans(), "step": NUMBERS}
    ),
    st.fixed_dictionaries(
        {"float": st.lists(NUMBERS, min_size=2, max_size=2)}, optional={"log": st.booleans(), "step": NUMBERS}
    ),
    st.fixed_dictionaries({"choice": st.lists(PLAIN, max_size=4)}),
)
ANYTHING = st.recursive(
    st.one_of(PLAIN, RANGES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)
UNSAFE = set("/\0")


def _value(annotation: object) -> st.SearchStrategy[object]:
    """Values of that type as a study file holds them; sections by their fields, each sometimes wrong."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _value(inner[0])
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(_value(one) for one in inner))
    if origin is tuple:
        return st.lists(_value(inner[0]), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, Choice | IntRange | FloatRange):
        return RANGES
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.deferred(lambda: _section(annotation))
    return {
        int: st.integers(-2, 300),
        float: st.floats(-1, 2),
        bool: st.booleans(),
        str: WORDS,
        type(None): st.none(),
    }.get(annotation, ANYTHING)


def _section(model: type[BaseModel]) -> st.SearchStrategy[object]:
    fields = {
        field.alias or name: st.one_of(_value(field.annotation), ANYTHING) for name, field in model.model_fields.items()
    }
    few = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)
    return few.flatmap(lambda keys: st.fixed_dictionaries({key: fields[key] for key in keys}))


@st.composite
def contents(draw) -> bytes:
    """Bytes of a study file: a small study with a part exchanged, sections of the right keys, or noise in its text."""
    study = yaml.safe_load(TINY)
    sections = draw(_section(StudyConfig))
    for key, value in sections.items():
        known = study.get(key)
        study[key] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
    text = draw(st.sampled_from([json.dumps, _block]))(study)
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(content)


def _block(study: object) -> str:
    try:
        return yaml.safe_dump(study, allow_unicode=True)
    except yaml.YAMLError:
        return json.dumps(study)


def _parsed(words: Sequence[str]) -> argparse.Namespace | None:
    """The parsed words; None if argparse printed help or an error."""
    try:
        return build_parser().parse_args(words)
    except SystemExit as stop:
        if stop.code not in (0, 2):
            raise
        return None


def _typed(*words: str) -> None:
    """Runs a command without the boundary in ``main``, which would hide other errors than KdsearchError."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_anything([said])
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        options = _parsed(words)
        if options is None:
            return
        with contextlib.suppress(KdsearchError):
            options.run(options)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("KDSEARCH_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (tmp_path / "a-folder").mkdir()
    return tmp_path


@FUZZ
@given(content=contents())
def test_study_file_is_valid_or_refused(folder, content):
    (folder / "fuzzed.yaml").write_bytes(content)
    _typed("check", "fuzzed.yaml")


ARGUMENTS = st.text(st.characters(exclude_characters=UNSAFE, exclude_categories=["Cs"]), max_size=10)
NOT_UTF_8 = st.binary(min_size=1, max_size=6).map(os.fsdecode).filter(lambda text: not UNSAFE & set(text))
FILES = st.one_of(st.sampled_from(["tiny.yaml", "a-folder", "missing.yaml", ".", "x.yaml"]), ARGUMENTS, NOT_UTF_8)
OPTIONS = st.sampled_from(
    [
        *(
            "--trials",
            "--workers",
            "--data",
            "--profile",
            "--out",
            "--json",
            "--csv",
            "--html",
            "--dry-run",
            "--repetitions",
        ),
        *(
            "--trial",
            "--params",
            "--macs",
            "--latency",
            "--file-size",
            "--min-dice",
            "--smallest-within",
            "--knee",
            "--port",
        ),
        *(
            "--int8-bound",
            "--runtime",
            "--unseen",
            "--on-invalid",
            "--places",
            "--markdown",
            "--latex",
            "--refit",
            "--all",
            "--png",
            "--quiet",
            "--min-specificity",
            "--min-specificity",
            "--help",
        ),
    ]
)
VALUES = st.one_of(
    ARGUMENTS,
    NOT_UTF_8,
    st.sampled_from(
        ["0", "-1", "1e400", "nan", "9" * 5000, "²", "820k", "5ms", "phantom", "folder=a-folder", "folder=~nobody"]
    ),
)
ENDS_SOON = ("check", "front", "report", "pick", "bench", "predict", "evaluate", "data", "sync", "schema")


@pytest.mark.usefixtures("folder")
@FUZZ
@given(
    command=st.sampled_from(ENDS_SOON),
    files=st.lists(FILES, min_size=1, max_size=2),
    options=st.lists(st.tuples(OPTIONS, st.one_of(st.none(), VALUES)), max_size=3),
)
def test_command_line_runs_or_is_refused(command, files, options):
    words = [word for pair in options for word in pair if word is not None]
    _typed(command, *files, *words)


@FUZZ
@given(
    words=st.lists(st.one_of(OPTIONS, VALUES, st.sampled_from(["run", "confirm", "test", "ui", "doctor"])), max_size=5)
)
def test_any_words_are_parsed_or_refused(words):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        _parsed(words)


CELLS = st.one_of(
    st.sampled_from(["a.png", "a", "b.png", "", "[/red]", "A.PNG", "a.jpg", " a.png", "p1"]), st.text(max_size=4)
)
HEADS = st.sampled_from(["image", "Image", "group", "label", "patient", "", "image "])


@st.composite
def tables(draw) -> bytes:
    """Bytes of a table: rows of any length, in any of the encodings that spreadsheets write."""
    mark = draw(st.sampled_from([",", ";", "\t"]))
    rows = [draw(st.lists(HEADS, max_size=4)), *draw(st.lists(st.lists(CELLS, max_size=5), max_size=5))]
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = end.join(mark.join(row) for row in rows)
    return draw(st.sampled_from(["", "\ufeff"])).encode() + text.encode(
        draw(st.sampled_from(["utf-8", "utf-16", "latin-1"])), "replace"
    )


@FUZZ
@given(content=st.one_of(tables(), st.binary(max_size=40)))
def test_table_is_read_or_refused(folder, content):
    _pictures(folder)
    (folder / "a-folder" / "table.csv").write_bytes(content)
    with contextlib.suppress(KdsearchError):
        read_folder(folder / "a-folder", csv="table.csv")


def _pictures(folder: Path) -> None:
    from PIL import Image

    for name in ("images", "masks"):
        (folder / "a-folder" / name).mkdir(exist_ok=True)
        for stem in ("a", "b"):
            path = folder / "a-folder" / name / f"{stem}.png"
            if not path.exists():
                Image.new("L", (4, 4)).save(path)
