"""From a picked folder to masks, scores and latencies, each command as a person types it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from kdsearch.cli.main import main
from kdsearch.cli.student import score_tables
from kdsearch.config.task import square
from kdsearch.data.dataset import Dataset, ImageInfo
from kdsearch.data.phantom import simulate
from kdsearch.export.loading import load_student
from kdsearch.trials.scores import NativeScores
from kdsearch.workflow.evaluate import Evaluation, data_of

WRITTEN = ("mask", "probability", "overlay")
BLOCKED = """
import sys
import numpy, onnxruntime  # they may import what they like
for name in ("torch", "pydantic", "yaml", "rich", "PIL", "safetensors", "onnx", "optuna", "mlflow", "timm", "scipy"):
    sys.modules[name] = None
from kdsearch.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def place(shipped, tmp_path_factory):
    """A folder with a student, some images and a broken file."""
    folder = tmp_path_factory.mktemp("shipping")
    shutil.copytree(shipped, folder / "student")
    random = np.random.default_rng(0)
    for name, size in (("a.png", (70, 50)), ("b.jpg", (33, 90)), ("deep/c.png", (40, 40))):
        (folder / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        values = random.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        Image.fromarray(values).save(folder / "pictures" / name)
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def run(place, capsys, monkeypatch):
    """Runs a command in that folder; returns what it printed."""
    monkeypatch.chdir(place)
    for name in os.environ:
        if name.startswith(("KDSEARCH_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments, code=0):
        found = main(arguments)
        said = capsys.readouterr()
        assert found == code, said.out + said.err
        return said

    return run


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_masks_have_the_size_of_their_images_and_a_bad_file_is_skipped_and_reported(run, place):
    done = run("predict", "student", "pictures", "bad.png", "--out", "masks", "--probabilities", code=1)
    assert "3 of 4 images done, written to masks" in done.out
    assert "skipped bad.png: cannot be decoded as an image" in done.err
    for name, size in (("a", (70, 50)), ("b", (33, 90)), ("deep/c", (40, 40))):
        mask, shares, overlay = (_pixels(place / "masks" / f"{name}_{what}.png") for what in WRITTEN)
        assert mask.shape == size[::-1]
        assert set(np.unique(mask)) <= {0, 255}
        assert ((shares / (2**16 - 1) > 0.5) == (mask > 0)).mean() > 0.999
        assert max(overlay.shape) == 256
    assert not list((place / "masks").glob("bad*"))


def test_other_files_in_a_folder_are_ignored_and_counted(run, place):
    folder = place / "mixed"
    (folder / "more").mkdir(parents=True)
    for name in ("a (1).png", "a (1)_mask.png", "a (1)_mask_1.png", "more/a_mask.png", "b.webp", "c.gif", "._a.png"):
        shutil.copy(place / "pictures" / "a.png", folder / name)
    (folder / "broken.png").symlink_to("nowhere.png")
    (folder / "linked").symlink_to(place / "pictures")
    done = run("predict", "student", "mixed", "--out", "of-mixed")
    assert "2 of 2 images done" in done.out, "a mask without its image may be an image"
    for words in (
        "skipped masks next to their images: 2, such as mixed/a (1)_mask.png",
        "skipped files with other endings: 2, such as mixed/b.webp",
        "skipped broken links: 1, such as mixed/broken.png",
        "skipped hidden files: 1, such as mixed/._a.png",
        "skipped linked folders: 1, such as mixed/linked",
    ):
        assert words in done.err
    done = run("predict", "student", "mixed/a (1)_mask.png", "--out", "of-mixed")
    assert "1 of 1 images done" in done.out, "who names a file means it"


def test_patterns_work_and_the_command_can_be_repeated(run):
    for _ in range(2):
        assert "1 of 1" in run("predict", "student", "pictures/*.jpg", "--out", "again").out


def test_masks_may_be_written_to_a_parent_folder(run):
    assert "1 of 1 images done" in run("predict", "student", "pictures/deep", "--out", ".").out


def test_output_inside_the_image_folder_and_pipes_are_not_read(run, place):
    folder = place / "album"
    folder.mkdir()
    shutil.copy(place / "pictures" / "a.png", folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    for _ in range(2):
        assert "1 of 1 images done" in run("predict", "student", "album", "--out", "album/masks").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "student", "absent*.png", "--out", "m"], "absent*.png: no images found"),
        (["predict", "student", "absent.png", "--out", "m"], "absent.png: no such file or folder"),
        (["predict", "student", "pictures", "--out", "pictures"], "--out pictures: is the folder of the images"),
        (["predict", "pictures", "pictures", "--out", "m"], "pictures: contains no student.yaml"),
        (
            ["predict", "student", "pictures/a.png", "twice/a.png", "--out", "m"],
            "would both be written to m/a_mask.png",
        ),
        (["evaluate", "student", "bussi=x"], "did you mean 'busi'?"),
        (["evaluate", "student", "busi"], "add the folder of the images: busi=FOLDER"),
        (["evaluate", "student", "busi=absent"], "absent"),
        (["bench", "pictures"], "contains neither model.onnx nor model.int8.onnx"),
    ],
)
def test_mistake_is_explained_on_one_screen(run, place, arguments, message):
    (place / "twice").mkdir(exist_ok=True)
    shutil.copy(place / "pictures" / "a.png", place / "twice" / "a.png")
    done = run(*arguments, code=2)
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (place / "m").exists()


@pytest.fixture(scope="module")
def published(place):
    """Phantoms in the folders and under the names of the published BUSI."""
    for label in ("benign", "malignant", "normal"):
        (place / "published" / label).mkdir(parents=True)
    for index in range(24):
        phantom = simulate(index, seed=5)
        name = place / "published" / phantom.label / f"{phantom.label} ({index})"
        Image.fromarray(phantom.image).save(f"{name}.png")
        Image.fromarray(phantom.mask).save(f"{name}_mask.png")
    return place / "published"


@pytest.mark.usefixtures("published")
def test_scores_on_a_data_set_come_with_one_row_per_image(run, place):
    done = run("evaluate", "student", "busi=published", "--out", "out/scores.csv")
    assert "all" in done.out
    assert "malignant" in done.out
    with (place / "out" / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    lesions = [row for row in rows if row["dice"]]
    assert 0 < len(lesions) < 24
    assert all(0 <= float(row["dice"]) <= 1 for row in lesions)
    assert all(0 <= float(row["native_dice"]) <= 1 for row in lesions)
    assert [row["native_dice"] for row in lesions] != [row["dice"] for row in lesions]
    assert all(0 <= float(row["nsd"]) <= 1 and 0 <= float(row["hd95"]) <= 1 for row in lesions)
    assert "At original resolution" in done.out
    assert {row["label"] for row in rows if not row["dice"]} == {"normal"}


def test_phantoms_can_be_named_as_a_data_set(shipped):
    (source,) = data_of("phantom", load_student(shipped)).sources
    assert source.reader == "phantom"


def test_training_images_are_reported_and_can_be_left_out(run, place, bench):
    images, masks = place / "own" / "images", place / "own" / "masks"
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    known, new = bench.materials.splits.train[0], bench.materials.splits.test[0]
    for name, position in (("known", known), ("new", new)):
        Image.fromarray(np.asarray(bench.materials.dataset.images[position, 0])).save(images / f"{name}.png")
        Image.fromarray(np.asarray(bench.materials.dataset.masks[position])).save(masks / f"{name}.png")
    said = run("evaluate", "student", "folder=own").out
    assert "1 of 2 images were used to train or choose this student" in said
    assert "1 of 2 images are locked test images of the study, which this uses up" in said
    run("evaluate", "student", "folder=own", "--unseen", "--out", "unseen.csv")
    assert [line.split(",")[0] for line in (place / "unseen.csv").read_text().splitlines()] == ["image", "folder/new"]
    (images / "new.png").unlink()
    (masks / "new.png").unlink()
    assert "nothing is left to score" in run("evaluate", "student", "folder=own", "--unseen", code=2).err


def test_bench_needs_only_onnxruntime_and_numpy(place):
    command = [sys.executable, "-c", BLOCKED, "bench", str(place / "student"), "--json"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["processor"]
    assert {entry["runtime"].partition(",")[0] for entry in found["latency"]} == {"model.onnx", "model.int8.onnx"}
    assert all(0 < entry["median_ms"] <= entry["p95_ms"] for entry in found["latency"])


def test_missing_package_is_named(place):
    command = [sys.executable, "-c", BLOCKED, "predict", "student", "pictures", "--out", "masks"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    assert "kdsearch predict: needs the package " in done.stderr
    assert "Traceback" not in done.stderr


def test_command_works_after_the_reader_of_its_output_has_exited(place):
    """As in ``kdsearch evaluate … | head -1``: rich prints first, the table of scores is written last."""
    folder = place / "unread"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(np.full((20, 20), 90, np.uint8)).save(folder / "images" / "a.png")
    Image.fromarray(np.pad(np.full((5, 5), 255, np.uint8), 8)[:20, :20]).save(folder / "masks" / "a.png")
    words = ("evaluate", "student", f"folder={folder}", "--unseen", "--out", str(folder / "scores.csv"))
    assert _run_unread(place, *words) == (0, "")
    assert (folder / "scores.csv").read_text(encoding="utf-8").count("\n") == 2
    words = ("predict", "student", "pictures/a.png", "bad.png", "--out", str(folder / "masks"))
    code, said = _run_unread(place, *words, options=("-u",))
    assert code == 1
    assert said.startswith("skipped bad.png")
    assert (folder / "masks" / "a_mask.png").is_file()


def _run_unread(place, *arguments, options=()):
    """Exit code and standard error of a command whose standard output is a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *options, "-m", "kdsearch", *arguments],
        cwd=place,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=240,
    )
    os.close(writer)
    return done.returncode, done.stderr


def test_table_of_scores_fits_eighty_columns_with_every_heading_and_label(capsys):
    labels = ("malignant", "benign", "normal", "a label that is far too long for a column of its own in eighty of them")
    infos = tuple(ImageInfo(id=f"x/{n}", source="x", label=label, group=None) for n, label in enumerate(labels))
    maps = torch.ones(4, 8, 8, dtype=torch.int64)
    images = np.zeros((4, 8, 8), np.uint8)
    native = NativeScores(dice=(1.0,) * 4, nsd=(0.5,) * 4, hd95=(1.0,) * 4)
    dataset = Dataset(images=images[:, None], masks=images, infos=infos, fingerprint="")
    console = Console(width=80)
    for table in score_tables(Evaluation(dataset=dataset, predicted=maps, target=maps, native=native), square(512)):
        console.print(table)
    text = capsys.readouterr().out
    assert "…" not in text
    for words in ("lesions", "Dice %", "IoU %", "specificity", "NSD %", "HD95 %", "missed (n)", "malignant"):
        assert words in text
    assert all(word in text for word in labels[3].split())
