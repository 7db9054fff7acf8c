"""A study with images without masks, from the file to the card."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import kdsearch
from kdsearch.cli.main import main
from kdsearch.errors import KdsearchError
from kdsearch.export.description import read_description
from kdsearch.export.seen import read_seen
from tests.data.pictures import write_image
from tests.tiny import TINY

MORE = "  unlabelled: [{reader: phantom, name: more, seed: 5, images: 12}]\n"
STUDY = (
    TINY.replace("  size: 32\n", f"  size: 32\n{MORE}")
    .replace("workers: 1", "executor: inline")
    .replace("{choice: [none, logits]}", "logits")
    + "\nconfirm: {folds: 2, repetitions: 1}\n"
)


@pytest.fixture
def place(tmp_path, tiny_home, record, monkeypatch):
    shutil.copytree(tiny_home, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", "home")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record)
    Path("study.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_study_with_unlabelled_images_runs_is_confirmed_and_picked(capsys):
    assert main(["run", "study.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "phantom (without masks: phantom, 50 % of each batch) at 32×32" in shown
    assert "unlabelled 12 images from more" in shown
    study = kdsearch.Study("study.yaml", home="home")
    assert study.confirm().members
    picked = study.pick(trial=0, registry=False, latency=False)
    described = read_description(picked.folder)
    assert described.data["unlabelled"] == 12
    card = (picked.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "- phantom, without masks: simulated by kdsearch" in card
    assert "12 more images without masks were used, with the teacher's predictions only." in card
    assert (
        len(read_seen(picked.folder, described).learnt.digests)
        == 12 + described.data["train"] + described.data["validation"]
    )
    assert "12 more without masks, for distillation only" in study.report().read_text(encoding="utf-8")


@pytest.mark.usefixtures("place")
def test_changed_unlabelled_sources_are_refused_once_trials_have_used_them():
    study = kdsearch.Study("study.yaml", home="home").run(trials=1)
    assert len(study.trials()) == 1
    Path("study.yaml").write_text(STUDY.replace("images: 12", "images: 11"), encoding="utf-8")
    with pytest.raises(KdsearchError, match="data.unlabelled"):
        kdsearch.Study("study.yaml", home="home").run()


def test_changed_images_under_the_same_names_are_refused_too(place):
    for index in range(6):
        write_image(place / "scans" / f"{index}.png", seed=index)
    content = yaml.safe_load(STUDY)
    content["data"]["unlabelled"] = [{"reader": "images", "folder": "scans"}]
    Path("study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    study = kdsearch.Study("study.yaml", home="home").run(trials=1)
    write_image(place / "scans" / "3.png", seed=77)
    with pytest.raises(KdsearchError, match="the images of data.unlabelled have changed since its trials were trained"):
        study.run()
    with pytest.raises(KdsearchError, match="data.unlabelled: the images have changed since its trials were trained"):
        study.confirm()
    write_image(place / "scans" / "3.png", seed=3)
    assert len(study.run().trials()) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_card_of_an_undistilled_student_counts_no_unlabelled_images():
    content = yaml.safe_load(STUDY)
    content["distillation"] = {"path": {"choice": ["none", "logits"]}}
    content["search"] |= {"sampler": "grid", "trials": 2}
    content["student"]["width"] = 4
    Path("study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    study = kdsearch.Study("study.yaml", home="home").run()
    paths = study.trials()["distillation.path"]
    for number, path in paths.items():
        picked = study.pick(trial=int(number), registry=False, latency=False)
        described = read_description(picked.folder)
        seen = described.data["train"] + described.data["validation"]
        taught = 0 if path == "none" else 12
        assert described.data["unlabelled"] == taught
        assert len(read_seen(picked.folder, described).learnt.digests) == seen + taught
        card = (picked.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert ("with the teacher's predictions only" in card) == (path != "none")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("distillation", [{"path": "hidden", "loss": "region"}, [{"path": "hidden", "loss": "region"}]])
def test_loss_that_works_only_with_masks_is_refused(capsys, distillation):
    content = yaml.safe_load(STUDY)
    content["distillation"] = distillation
    Path("study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["check", "study.yaml"]) == 2
    assert "loss region needs masks" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("place")
def test_data_command_counts_unlabelled_images(capsys):
    assert main(["data", "study.yaml"]) == 0
    assert "more, without masks" in capsys.readouterr().out


@pytest.mark.usefixtures("place")
def test_unlabelled_images_are_refused_without_distillation(capsys):
    content = yaml.safe_load(STUDY)
    content["distillation"] = {"path": "none"}
    Path("study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["check", "study.yaml"]) == 2
    assert "images without masks are used only for distillation" in " ".join(capsys.readouterr().err.split())
