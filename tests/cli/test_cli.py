"""The command line as users type it, in its own process if the test starts or stops processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import psutil
import pytest
import yaml

from kdsearch.version import __version__
from tests.cli.shells import Shell
from tests.tiny import TINY


def _environment() -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("KDSEARCH_", "MLFLOW_"))}
    return environment | {"COLUMNS": "100"}


def _run(place: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kdsearch", *arguments]
    done = subprocess.run(
        command, cwd=place, env=_environment(), capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_version(shell):
    assert shell("--version").out == f"kdsearch {__version__}\n"


def test_doctor_lists_what_is_installed(shell):
    said = shell("doctor").out
    assert all(name in said for name in ("torch", "optuna", "MLflow", "kdsearch home", "jinja2", "kdsearch[encoders]"))


def test_doctor_says_what_to_do_if_the_server_does_not_answer(shell, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "160")
    said = shell("doctor", code=1).out
    assert "does not answer" in said
    assert "start the MLflow server" in said


def test_check_shows_the_space(shell):
    text = shell("check", "tiny.yaml").out
    assert "tiny.yaml is valid" in text
    assert (
        "with 50, 100, 200, 500 lesion images for validation, differences below 6.9, 4.9, 3.5, 2.2 Dice points" in text
    )
    assert "space     10 different students" in text
    assert "smallest  961 params, 279k MACs per image: 3 stages from 2 channels, ×2, 1 standard convolution" in text
    assert "largest   8.28k params" in text


def test_schema_accepts_shipped_studies_and_refuses_typos(shell):
    schema = json.loads(shell("schema").out)
    folder = Path(__file__).parents[2] / "studies"
    for path in folder.glob("*.yaml"):
        jsonschema.validate(_plain(path), schema)
    with pytest.raises(jsonschema.ValidationError, match="widht"):
        jsonschema.validate({"name": "a", "student": {"widht": 3}}, schema)
    assert json.loads((folder / "study.schema.json").read_text()) == schema


def _plain(path: Path):
    from kdsearch.config.yaml_file import YamlFile

    return YamlFile(path).content


@pytest.mark.parametrize("command", ["run", "check", "front", "pick"])
def test_typo_in_the_study_prints_one_screen_without_a_traceback(shell, place, command):
    (place / "typo.yaml").write_text(TINY.replace("student: {width", "student: {widht"), encoding="utf-8")
    said = shell(command, "typo.yaml", code=2).err
    assert "typo.yaml:10: student.widht: unknown key" in said
    assert "did you mean 'width'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "absent.yaml"], "absent.yaml: no such study file"),
        (["front", "tiny-never-run.yaml"], "has not been run yet"),
        (["pick", "tiny.yaml", "--params", "12q"], "'12q' is not a number; write it as 820k"),
        (["pick", "tiny.yaml", "--params", "0"], "'0' must be above zero"),
        (["pick", "tiny.yaml", "--min-dice", "80"], "'80' is not a number from 0 to 1"),
        (["report", "tiny-never-run.yaml"], "has not been run yet"),
        (["pick", "tiny.yaml", "--latency", "10s"], "'10s' is not a time in milliseconds; write it as 5ms or 0.8"),
        (["pick", "tiny.yaml", "--best", "--knee"], "not allowed with argument"),
        (["run", "tiny.yaml", "--trials", "0"], "'0' is not a whole number from 1 to 1,000,000"),
        (["run", "tiny.yaml", "--data", "x=y"], "the study's sources are: none that reads a folder"),
        (["rnu", "tiny.yaml"], "no command 'rnu'; did you mean 'run'?"),
        (
            ["pick", "tiny.yaml", "--min-empty-share", "0.9"],  # old name
            "--min-empty-share was renamed: write --min-specificity",  # old name
        ),
        (["evaluate", "x", "busi=y", "--on-defect", "skip"], "--on-defect was renamed: write --on-invalid"),  # old name
        (["evaluate", "x", "--data", "busi=y"], "--data was renamed: write the data set after the folder"),
        (["evaluate", "x", "busi=y", "--csv", "z"], "--csv was renamed: write --out FILE"),
        (["run", "tiny.yaml", "--quiet", "--verbose"], "not allowed with argument"),
    ],
)
def test_mistake_on_the_command_line_is_explained(shell, arguments, message):
    said = shell(*arguments, code=2).err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_study_from_run_to_pick(place, shell):
    done = _run(place, "run", "tiny.yaml")
    assert done.stderr == ""
    for text in (
        "reading images",
        "teacher: epoch 1/1",
        "(3 of 3)",
        "Pareto front: ",
        " teacher",
        "kdsearch confirm tiny.yaml",
        "kdsearch ui tiny.yaml",
        "runs?viewStateShareKey=kdsearch-front-",
        "kdsearch pick",
    ):
        assert text in done.stdout
    assert (place / "mlflow" / "mlflow.db").is_file()
    complete = shell("run", "tiny.yaml").out
    assert "This study is complete (3 trials)" in complete
    assert "kdsearch run tiny.yaml --trials 6" in complete
    quiet = shell("run", "tiny.yaml", "--quiet")
    assert quiet.out.lstrip().startswith("Pareto front: ")
    assert "kdsearch" not in quiet.out + quiet.err
    more = shell("run", "tiny.yaml", "--trials", "4").out
    assert "searching: 3 of 4 trials are done" in more
    _check_front(place, shell)
    _check_report(place, shell)
    _check_pick(place, shell)
    _check_ui(place, shell)


def _check_front(place: Path, shell: Shell) -> None:
    members = json.loads(
        shell("front", "tiny.yaml", "--json", "--html", "out/front.html", "--png", "out/front.png").out
    )
    assert 1 <= len(members) <= 4
    assert len(shell("front", "tiny.yaml", "--csv").out.splitlines()) == len(members) + 1
    assert "Plotly.newPlot" in (place / "out" / "front.html").read_text(encoding="utf-8")
    assert (place / "out" / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "Dice %" in shell("front", "tiny.yaml").out
    listed = shell("front", "tiny.yaml", "--all").out
    assert sum("stages from" in line for line in listed.splitlines()) == len(members)


def _check_report(place: Path, shell: Shell) -> None:
    assert "Written to out/report.html" in shell("report", "tiny.yaml", "--out", "out/report.html").out
    assert "<h1>tiny</h1>" in (place / "out" / "report.html").read_text(encoding="utf-8")
    assert r"\toprule" in shell("report", "tiny.yaml", "--latex").out
    assert "| path | students |" in shell("report", "tiny.yaml", "--markdown").out


def _check_ui(place: Path, shell: Shell) -> None:
    assert "MLflow has no runs of study never-run" in shell("ui", "tiny-never-run.yaml", code=2).err
    command = [sys.executable, "-m", "kdsearch", "ui", "tiny.yaml"]
    with subprocess.Popen(command, cwd=place, env=_environment(), stdout=subprocess.PIPE, text=True) as process:
        link, *others = (process.stdout.readline() for _ in range(3))
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    assert "viewStateShareKey=kdsearch-front-" in link
    assert ["kdsearch-curves-" in others[0], "kdsearch-paths-" in others[1]] == [True, True]
    assert family
    assert not [member for member in family if member.is_running() and member.status() != "zombie"]


def _check_pick(place: Path, shell: Shell) -> None:
    options = (
        "--params",
        "0.82M",
        "--smallest-within",
        "1",
        "--out",
        "picked/one",
        "--int8-bound",
        "1",
        "--no-latency",
        "--json",
    )
    found = json.loads(shell("pick", "tiny.yaml", *options).out)
    assert found["why"].startswith(
        f"Trial {found['trial']} is the smallest student within 100 Dice points of the best of 4 "
    )
    assert found["registered"] == "models:/tiny/1"
    assert found["folder"] == "picked/one"
    described = yaml.safe_load((place / "picked" / "one" / "student.yaml").read_text(encoding="utf-8"))
    assert described["trial"] == found["trial"]
    assert (place / "picked" / "one" / "model.onnx").is_file()
    again = shell("pick", "tiny.yaml", *options)
    assert "picked/one already contains this student" in again.err
    assert json.loads(again.out) == found
    other = shell("pick", "tiny.yaml", *options, "--with-preprocessing", code=2)
    assert "picked/one exists already (it was written without" in other.err
    assert "cannot be written" in shell("front", "tiny.yaml", "--html", "picked/one", code=2).err
    nothing = shell("pick", "tiny.yaml", "--latency", "0.0001ms", code=1).out
    assert re.search(r"is within latency ≤ 0.0001 ms. Closest: trial \d: Dice .* ms here, .*kB", nothing)
    assert "no finished student of that number" in shell("pick", "tiny.yaml", "--trial", "77", code=2).err


@pytest.mark.slow
def test_interrupted_study_says_how_to_resume_and_resumes(place):
    text = TINY.replace("name: tiny", "name: interrupted").replace("training: {epochs: 2}", "training: {epochs: 60}")
    (place / "interrupted.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "kdsearch", "run", "interrupted.yaml", "--trials", "3"]
    with subprocess.Popen(
        command, cwd=place, env=_environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith("trial 0: started"):
                time.sleep(1)
                os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 130
    assert "To resume:" in "".join(seen)
    assert "kdsearch run interrupted.yaml --trials 3" in "".join(seen)
    (place / "interrupted.yaml").write_text(text.replace("workers: 1", "workers: 2"), encoding="utf-8")
    again = _run(place, "run", "interrupted.yaml").stdout
    assert "trial 0: started" in again
    assert "(3 of 3)" in again


def test_broken_pipe_is_quiet(place):
    done = subprocess.run(
        f"{sys.executable} -m kdsearch schema | head -1",
        shell=True,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


REPEATED = """
name: repeated
replicates: 2
report_test_scores: true
data:
  sources: [{reader: phantom, images: 40}]
  size: 32
teacher: {encoder_depth: 3, weights: none, training: {epochs: 1}}
student: {width: 4, depth: 2, convs_per_stage: 1}
distillation: {path: {choice: [none, logits]}}
training: {epochs: 2}
search: {sampler: grid, trials: 9, executor: inline, objectives: [dice]}
"""


@pytest.mark.slow
def test_repeated_study_is_averaged_over_splits_and_seeds(place, shell):
    (place / "repeated.yaml").write_text(REPEATED, encoding="utf-8")
    said = shell("run", "repeated.yaml").out
    assert "Study repeated.repeat-2: " in said
    assert "Over repeats, each with another split and seed; test images" in said
    again = shell("front", "repeated.yaml").out
    for name in ("teacher", "no teacher", "logits dml weak", "p vs no teacher"):
        assert name in again
    splits = [json.loads((place / ".kdsearch" / "studies" / name / "test-dice.json").read_text())["of"]
              for name in ("repeated", "repeated.repeat-2")]  # fmt: skip
    assert splits[0] != splits[1]
    tables = shell("report", "repeated.yaml", "--markdown").out
    assert "| no teacher |" in tables
    assert "2 repeats: too few for a verdict on distillation, which needs 5" in tables
    (place / "tpe.yaml").write_text(REPEATED.replace("sampler: grid, ", ""), encoding="utf-8")
    assert "replicates: 2 needs search.sampler: grid" in shell("check", "tpe.yaml", code=2).err
