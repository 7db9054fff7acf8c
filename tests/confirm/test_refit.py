"""``kdsearch pick --refit``: what the locked test trained on all other images is what ships."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import kdsearch
import mlflow
from kdsearch.cli.main import main
from kdsearch.config.load import load_study
from kdsearch.confirm.store import open_confirmation
from kdsearch.errors import KdsearchError
from kdsearch.export.description import read_description
from kdsearch.export.timing import WEIGHTS
from kdsearch.files.digests import digest_file
from kdsearch.files.home import weights_path
from kdsearch.search.store import open_store


def _stored():
    study = load_study(Path("study.yaml"))
    search = open_store(study, Path("home"), create=False)
    url = "sqlite:///home/studies/tiny/optuna.db"
    return open_confirmation(url, "tiny", study_id=search.id, kind="test").results()


FOLDER = Path("picked/tiny-1-refit")


def _study():
    return kdsearch.Study("study.yaml", home="home")


@pytest.mark.usefixtures("tested")
def test_tested_weights_ship_with_the_scores_of_the_locked_images(capsys):
    found = _study().test(1)
    assert main(["pick", "study.yaml", "--refit", "--no-latency", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["trial"], shown["scored_on"], shown["folder"]) == (1, "test", str(FOLDER))

    job = f"confirm-{found.plan[:8]}-1-1-1"
    assert digest_file(FOLDER / WEIGHTS) == digest_file(weights_path(Path("home"), "tiny", job))
    described = read_description(FOLDER)
    (tested,) = [path for path in found.arms if path.role == "member"]
    assert described.recipe.seed == 0
    assert described.lesion_images == found.images
    assert described.onnx.dice == pytest.approx(described.scores["dice"], abs=1e-4)
    own = _stored()[tested.id, 0, 0].scores
    assert described.scores["dice"] == own.dice, "of the seed that ships, not of the three"
    assert described.native.dice == pytest.approx(np.nanmean(own.native.dice), abs=1e-4)
    assert (described.data["validation"], described.data["test"]) == (0, found.images)
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Trial 1, trained on all but the locked images, with seed 0 as planned" in card
    assert "On the locked test images, which these weights were not trained on:" in card
    assert "These weights were scored on the locked test images. Those were used once." in card
    assert "validat" not in card.casefold().replace("validation images", "")


@pytest.mark.usefixtures("confirmed")
@pytest.mark.slow
def test_refit_carries_what_was_confirmed(capsys):
    study = _study()
    confirmed = study.confirm()
    trial = confirmed.members[0].trial
    study.test(trial)
    picked = study.pick(refit=True, registry=False, latency=False)
    assert picked.trial == trial
    assert f"plan {confirmed.plan}: its settings give Dice {confirmed.members[0].dice} %" in picked.warning
    assert "On the" in picked.warning
    assert "locked test images with a lesion, used once" in picked.warning
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.usefixtures("tested")
def test_refit_and_searched_student_are_stored_separately_and_found_again(capsys):
    study = _study()
    study.pick(trial=1, registry=False, latency=False)
    study.pick(refit=True, registry=False, latency=False)
    assert main(["pick", "study.yaml", "--refit", "--no-latency", "--no-registry"]) == 0
    assert "already contains this student" in capsys.readouterr().out
    searched, refit = (read_description(Path(f"picked/tiny-1{end}")) for end in ("", "-refit"))
    assert (searched.scored_on, refit.scored_on) == ("validation", "test")
    assert searched.files["seen.txt"] == refit.files["seen.txt"], "the recipe was chosen by the same images"
    assert searched.files["model.onnx"] != refit.files["model.onnx"]


def test_registered_version_says_what_its_scores_are_of(tested):
    version = _study().pick(refit=True, latency=False).model_uri
    client = mlflow.MlflowClient(f"sqlite:///{tested}/mlflow.db")
    assert client.get_model_version("tiny", version.rpartition("/")[2]).tags["scored_on"] == "test"


@pytest.mark.slow
@pytest.mark.usefixtures("tested")
def test_both_of_two_tests_can_be_shipped_and_the_last_is_the_default():
    study = _study()
    study.test(0, again=True)
    assert study.pick(refit=True, registry=False, latency=False).trial == 0
    older = study.pick(refit=True, trial=1, registry=False, latency=False)
    assert older.trial == 1
    assert "used 2 times" in older.warning


@pytest.mark.parametrize(
    ("stage", "words", "message"),
    [
        ("searched", [], "no test is finished; run kdsearch test --trial N first"),
        ("searched", ["--trial", "1"], "run kdsearch test --trial 1 first"),
        ("tested", ["--trial", "0"], "trial 0 was not tested; tested trials: 1"),
        ("tested", ["--knee"], "--refit cannot be combined with"),
    ],
)
def test_refit_without_such_a_test_is_refused(capsys, enter, stage, words, message):
    enter(stage)
    assert main(["pick", "study.yaml", "--refit", *words]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not Path("picked").exists()


@pytest.mark.usefixtures("tested")
def test_refit_over_the_budget_is_named(capsys):
    assert main(["pick", "study.yaml", "--refit", "--params", "10"]) == 1
    assert "Trial 1 is not within params ≤ 10" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("tested")
def test_weights_that_are_gone_are_named():
    study = _study()
    found = study.test(1)
    weights_path(Path("home"), "tiny", f"confirm-{found.plan[:8]}-1-1-1").unlink()
    with pytest.raises(KdsearchError, match="the weights of trial 1 are not at"):
        study.pick(refit=True, registry=False, latency=False)
