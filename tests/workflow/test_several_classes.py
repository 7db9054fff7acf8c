"""A study of three classes in color, not square and padded, from the search to predicted masks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import kdsearch
from kdsearch.cli.main import main
from kdsearch.config.load import load_study
from kdsearch.data.phantom import simulate
from kdsearch.data.pixels import gray_of
from kdsearch.errors import KdsearchError
from kdsearch.export.predict import segment
from kdsearch.models.students import build_student
from kdsearch.workflow.evaluate import data_of
from tests.front.students import student
from tests.search.setups import make_materials
from tests.shared import made_once
from tests.shipping import PLAIN, Bench, ship

COLORED = """
name: colored
data:
  sources: [{reader: phantom, images: 40, classes: 3, colored: true}]
  size: [32, 48]
  fit: pad
  channels: 3
teacher: {encoder_depth: 3, weights: none, training: {epochs: 1}}
student: {width: {int: [4, 6]}, depth: 2, convs_per_stage: 1}
distillation: {path: logits}
training: {epochs: 1}
search: {trials: 3, startup_trials: 2, executor: inline}
confirm: {folds: 2, students: 1}
"""


@pytest.fixture(scope="module")
def picked(tmp_path_factory):
    """The folder of a student with random weights."""

    def make(folder):
        (folder / "study.yaml").write_text(COLORED, encoding="utf-8")
        study = load_study(folder / "study.yaml")
        network = build_student(student(3, 0.7, 10).recipe.student, channels=3, outputs=3, seed=3)
        network.train()(torch.randn(4, 3, 32, 48, generator=torch.Generator().manual_seed(0)))
        save_file({name: one.contiguous() for name, one in network.state_dict().items()}, folder / "w.safetensors")
        materials = make_materials(study, folder / "home")
        ship(Bench(study, materials), folder / "w.safetensors", folder / "picked")
        raw = dataclasses.replace(PLAIN, preprocessing=True)
        with pytest.raises(KdsearchError, match="--with-preprocessing: the graph cannot pad images"):
            ship(Bench(study, materials), folder / "w.safetensors", folder / "raw", form=raw)
        stretched = load_study(folder / "study.yaml", ["data.fit=stretch"])
        materials = make_materials(stretched, folder / "home")
        ship(Bench(stretched, materials), folder / "w.safetensors", folder / "raw", form=raw)

    return made_once(tmp_path_factory, "colored", make)


def _image(index):
    return simulate(index, seed=9, classes=3, colored=True).image[:120]


@pytest.mark.parametrize("runtime", ["onnx", "int8", "torch"])
def test_student_predicts_numbers_and_probabilities_of_all_classes(picked, runtime):
    loaded = kdsearch.load_student(picked / "picked", runtime=runtime)
    assert loaded.classes == ("lesion", "cyst")
    mask, shares = loaded(_image(0)), loaded.probabilities(_image(0))
    assert mask.dtype == np.uint8
    assert mask.shape == (120, 192)
    assert shares.shape == (3, 120, 192)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(mask, shares.argmax(axis=0))


def test_runtimes_agree_and_colors_matter(picked):
    onnx, fromtorch = (kdsearch.load_student(picked / "picked", runtime=name) for name in ("onnx", "torch"))
    np.testing.assert_allclose(onnx.logits(_image(1)), fromtorch.logits(_image(1)), atol=1e-3)
    gray = np.repeat(gray_of(_image(1))[..., None], 3, axis=2)
    assert np.abs(onnx.logits(gray) - onnx.logits(_image(1))).max() > 0.01


def test_preprocessing_in_the_graph_equals_kdsearch_s_for_colors_of_the_same_shape(picked):
    inside, outside = (kdsearch.load_student(picked / name) for name in ("raw", "picked"))
    image = np.array(Image.fromarray(_image(2)).resize((48, 32)))
    np.testing.assert_allclose(inside.logits(image), outside.logits(image), atol=1e-3)


def test_description_and_card_say_what_goes_in_and_out(picked):
    description = kdsearch.load_student(picked / "picked").description
    assert (description.input.size, description.input.channels, description.input.fit) == ((32, 48), 3, "pad")
    assert description.lesion_where == "largest logit"
    card = (picked / "picked" / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in (
        "Predicts the classes lesion and cyst in color images",
        "32×48 with their aspect ratio, and padded with black",
        "`image`: N×3×32×48 colors",
        "`logits`: N×3×32×48",
        "the largest logit, in the order background, lesion, cyst",
    ):
        assert words in card


def test_program_in_the_folder_predicts_the_same_classes(picked):
    for name, differ in (("picked", 0.0), ("raw", 0.02)):
        session = onnxruntime.InferenceSession(str(picked / name / "model.onnx"))
        mask = np.asarray(segment(session, Image.fromarray(_image(3))))
        assert (mask != kdsearch.load_student(picked / name)(_image(3))).mean() <= differ
        assert set(np.unique(mask)) == {0, 1, 2}


def test_predicted_mask_holds_class_numbers_with_a_palette(picked, tmp_path, capsys):
    Image.fromarray(_image(3)).save(tmp_path / "a.png")
    assert main(["predict", str(picked / "picked"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"),
                 "--probabilities"]) == 0  # fmt: skip
    with Image.open(tmp_path / "out" / "a_mask.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), kdsearch.load_student(picked / "picked")(_image(3)))
        assert mask.getpalette()[:6] == [0, 0, 0, 230, 159, 0]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a_mask.png", "a_overlay.png", "a_probability_lesion.png", "a_probability_cyst.png"}
    assert "1 of 1 images done" in capsys.readouterr().out


def _set(folder, values):
    for index in range(4):
        phantom = simulate(index, seed=11, classes=3, colored=True)
        for part, pixels in (("images", phantom.image), ("masks", np.array(values, np.uint8)[phantom.mask])):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / part / f"{index}.png")


def test_evaluate_has_a_row_for_each_class_whatever_the_masks_call_it(picked, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KDSEARCH_HOME", str(tmp_path / "home"))
    tables = []
    for name, values, more in (
        ("own", [0, 1, 2], []),
        ("other", [9, 7, 3], ["classes={cyst: 3, background: 9, lesion: 7}"]),
    ):
        _set(tmp_path / name, values)
        out = ["--out", str(tmp_path / f"{name}.csv")]
        assert main(["evaluate", str(picked / "picked"), f"folder={tmp_path / name}", *more, *out]) == 0
        tables.append(capsys.readouterr().out.partition("Written")[0])
    assert tables[0] == tables[1]
    assert "class lesion" in tables[0]
    assert "mean IoU with background:" in tables[0]
    head = (tmp_path / "own.csv").read_text().splitlines()[0]
    assert head.endswith("nothing_predicted,native_dice_lesion,native_dice_cyst")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["classes={background: 0, a: 1, b: 2}"], "predicts lesion, cyst, but the masks have the classes a, b; say"),
        (["size=64"], "only classes, palette, other_values, ignore can be set here"),
    ],
)
def test_classes_of_another_data_set_are_never_mixed_in_silence(picked, settings, message):
    with pytest.raises(KdsearchError, match=message):
        data_of("folder=x", kdsearch.load_student(picked / "picked"), settings=settings)


WHOLE = COLORED.replace("images: 40", "images: 200").replace(
    "weights: none, training: {epochs: 1}", "training: {epochs: 3}"
)
WHOLE = WHOLE.replace("training: {epochs: 1}", "training: {epochs: 12}").replace("int: [4, 6]", "int: [10, 12]")
MARGIN = 0.1
"""By which color must beat gray."""


@pytest.mark.slow
def test_color_beats_gray_from_the_search_to_the_masks(tmp_path, monkeypatch, capsys):
    """In these images only the color tells a lesion from a cyst and both from tissue."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", str(tmp_path / "home"))
    (tmp_path / "color.yaml").write_text(WHOLE, encoding="utf-8")
    gray = WHOLE.replace("name: colored", "name: gray").replace("channels: 3", "channels: 1")
    (tmp_path / "gray.yaml").write_text(gray, encoding="utf-8")
    best = {}
    for name in ("color", "gray"):
        assert main(["run", f"{name}.yaml", "-q"]) == 0
        capsys.readouterr()
        assert main(["front", f"{name}.yaml", "--json"]) == 0
        scores = [row["scores"] for row in json.loads(capsys.readouterr().out)]
        best[name] = max(row["dice"] for row in scores)
        assert {"miou", "dice_lesion", "dice_cyst"} <= set(scores[0])
    assert best["color"] > best["gray"] + MARGIN
    assert main(["confirm", "color.yaml", "-q"]) == 0
    assert "class cyst" in capsys.readouterr().out
    assert main(["report", "color.yaml"]) == 0
    page = (tmp_path / "colored-report.html").read_text(encoding="utf-8")
    assert "class cyst" in page
    assert "Dice by class" in page
    assert main(["pick", "color.yaml", "--out", "picked", "--no-latency"]) == 0
    assert "class cyst" in (tmp_path / "picked" / "MODEL_CARD.md").read_text(encoding="utf-8")
    _set(tmp_path / "new", [0, 1, 2])
    assert main(["predict", "picked", "new/images", "--out", "masks"]) == 0
    found = np.stack([np.asarray(Image.open(tmp_path / "masks" / f"{index}_mask.png")) for index in range(4)])
    truth = np.stack([np.asarray(Image.open(tmp_path / "new" / "masks" / f"{index}.png")) for index in range(4)])
    for number in (1, 2):
        both = ((found == number) & (truth == number)).sum()
        assert 2 * both / ((found == number).sum() + (truth == number).sum()) > 0.5
