"""Whether unlabelled images of a hospital help a student there: docs/results/unlabelled-images.md.

    python tests/benchmarks/unlabelled.py studies/busi-small.yaml --data BUSI_FOLDER --elsewhere breast=BREAST_FOLDER

Trains students with the same settings and three seeds: without a teacher, distilled, and distilled with half of the
other hospital's patients as unlabelled images. Scores them on the other half and on the study's validation images, with
last weights. Intervals come from a bootstrap over groups of images and over seeds. Trains the study's teacher if
necessary.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load

from kdsearch.config.data import DataConfig
from kdsearch.config.distillation import DistillationSpec
from kdsearch.config.load import load_study, with_folders
from kdsearch.config.networks import UNetSpec
from kdsearch.config.sources import PublishedSource
from kdsearch.config.study import StudyConfig
from kdsearch.config.training import TrainingSpec
from kdsearch.data.cache import load_dataset, load_unlabelled
from kdsearch.data.dataset import Dataset, group_of
from kdsearch.data.splits import split
from kdsearch.distill.batches import Images, images_at
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.materials import Materials
from kdsearch.distill.student import Trainer
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import open_teacher, teacher_folder
from kdsearch.export.checks import lesion_dice
from kdsearch.files.digests import seed_of
from kdsearch.files.home import home_folder
from kdsearch.models.students import build_student
from kdsearch.statistics.resampling import Floats, draw_means, sums_by_group
from kdsearch.trials.recipe import Recipe
from tests.distill.teachers import teach
from tests.search.setups import finish

CPU = torch.device("cpu")
DML = {"path": "logits", "loss": "dml", "teacher_view": "weak", "weight": 1.0}
ARMS = ("plain", "dml", "dml and unlabelled")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--elsewhere", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    study = with_folders(load_study(options.study), options.data)
    reader, _, folder = options.elsewhere.partition("=")
    source = PublishedSource(reader=reader, folder=folder)
    here, there, held = _materials(study, source, home_folder(os.environ))
    validation = images_at(here.dataset, here.splits.validation, CPU)
    elsewhere = images_at(there, tuple(held), CPU)
    print(
        f"{len(here.splits.train)} images to train on, {len(here.unlabelled.positions)} unlabelled, teacher "
        f"{100 * here.teacher.scores.dice:.1f} % here, {100 * _dice_of_teacher(here, elsewhere):.1f} % there"
    )
    dice: dict[str, list[tuple[Floats, Floats]]] = {arm: [] for arm in ARMS}
    for seed in range(options.seeds):
        for arm in ARMS:
            network = _trained(here, arm, seed=seed, epochs=options.epochs)
            dice[arm].append((_dice(network, validation), _dice(network, elsewhere)))
            print(
                f"seed {seed}, {arm}: {' '.join(f'{100 * np.nanmean(part):.1f}' for part in dice[arm][-1])}", flush=True
            )
    groups = [
        [group_of(here.dataset.infos[place]) for place in here.splits.validation],
        [group_of(there.infos[place]) for place in held],
    ]
    print("| arm | here, Dice % | minus plain | there, Dice % | minus plain | minus dml |\n|---|---|---|---|---|---|")
    for arm in ARMS:
        cells = [arm]
        for place in (0, 1):
            rows = {name: np.stack([pair[place] for pair in pairs]) for name, pairs in dice.items()}
            cells.append(f"{100 * np.nanmean(rows[arm]):.1f}")
            cells += [
                _difference(rows[arm] - rows[other], groups[place]) if arm != other else ""
                for other in (("plain",), ("plain", "dml"))[place]
            ]
        print(f"| {' | '.join(cells)} |")


def _materials(study: StudyConfig, source: PublishedSource, home: Path) -> tuple[Materials, Dataset, list[int]]:
    """The study's, with half of the other place's groups unlabelled; the other place, and its positions held out."""
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives)
    data = DataConfig(**{**dict(study.data), "unlabelled": (source,), "on_invalid": "skip"})
    part = load_unlabelled(data, home, dataset, splits)
    there = load_dataset(DataConfig(sources=(source,), size=study.data.size, on_invalid="skip"), home)
    groups = {info.id: group_of(info) for info in there.infos}
    held = {name for name, group in groups.items() if seed_of("held", group) % 2}
    kept = tuple(place for place in part.positions if part.whole.infos[place].id not in held)
    recipe = TeacherRecipe.of(study)
    folder = teacher_folder(recipe, splits.fingerprint, home)
    plain = Materials(dataset=dataset, splits=splits)
    teacher = open_teacher(recipe, folder) or teach(study, plain.training_data(CPU), folder)
    materials = dataclasses.replace(
        plain, trained_teacher=teacher, unlabelled=dataclasses.replace(part, positions=kept)
    )
    return materials, there, [place for place, info in enumerate(there.infos) if info.id in held]


def _trained(materials: Materials, arm: str, *, seed: int, epochs: int) -> torch.nn.Module:
    student = UNetSpec(width=12, growth=1.0, depth=4, convs_per_stage=2, conv="separable")
    terms = None if arm == "plain" else DistillationSpec.model_validate({"terms": (DML,), "loss_mix": "add"})
    training = TrainingSpec(epochs=epochs, learning_rate=5e-3)
    recipe = Recipe(student=student, distillation=terms, training=training, seed=seed)
    known = materials if arm == ARMS[-1] else dataclasses.replace(materials, unlabelled=None)
    _, trained = finish(Trainer(known.training_data(CPU), known.trained_teacher).distil(recipe, kept="last"))
    network = build_student(student)
    network.load_state_dict(load(trained.weights))
    return network.eval()


def _dice(network: torch.nn.Module, images: Images) -> Floats:
    return lesion_dice(predict_logits(network, images.pixels), images).numpy().astype(np.float64)


def _dice_of_teacher(materials: Materials, images: Images) -> float:
    return float(np.nanmean(_dice(materials.teacher.load(CPU), images)))


def _difference(rows: Floats, groups: list[str]) -> str:
    """Of S×N differences, seeds and groups both drawn with replacement."""
    sums, sizes = sums_by_group(rows, groups)
    by_seed = draw_means(sums, sizes)
    seeds = np.random.default_rng(1).multinomial(len(rows), [1 / len(rows)] * len(rows), size=by_seed.shape[1]) / len(
        rows
    )
    drawn = (by_seed * seeds.T).sum(axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{100 * np.nanmean(rows):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


if __name__ == "__main__":
    main()
