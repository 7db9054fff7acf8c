"""How strong the gradients of each path and loss are, compared with the supervised loss: docs/results/losses.md.

    python tests/benchmarks/gradients.py studies/pareto.yaml

The scales in ``TERM_LOSSES`` come from this script. Prints the norm of the distilled term's gradient over that of the
supervised loss, at the start and in the middle of a training without a teacher; medians over batches, smallest and
largest in parentheses. Trains the study's teacher if necessary.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
from pathlib import Path

import torch
from torch import nn

from kdsearch.config.distillation import ANY_CHANNELS, LOSSES, DistillationSpec, is_softened
from kdsearch.config.load import load_study, with_folders
from kdsearch.config.networks import UNetSpec
from kdsearch.config.study import StudyConfig
from kdsearch.config.training import SupervisedLoss
from kdsearch.data.cache import load_dataset
from kdsearch.data.splits import split
from kdsearch.distill.batches import Batch, TrainingData, training_data
from kdsearch.distill.feature_maps import HiddenMaps
from kdsearch.distill.loop import draw_batch
from kdsearch.distill.losses import TERM_LOSSES
from kdsearch.distill.objective import Distillation, Supervised
from kdsearch.distill.optimization import build_optimizer, build_schedule
from kdsearch.distill.student import MEASURED_IMAGES
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import TrainedTeacher, open_teacher, teacher_folder
from kdsearch.files.home import home_folder
from kdsearch.models.contract import normalize
from kdsearch.models.students import build_student
from kdsearch.models.teacher import Teacher
from kdsearch.models.unet import UNet, initialize
from tests.distill.teachers import teach

BATCHES = 8


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--student", default="8x3")
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    study = with_folders(load_study(options.study), options.data)
    home = home_folder(os.environ)
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives)
    data = training_data(dataset, splits, torch.device("cpu"))
    recipe = TeacherRecipe.of(study)
    folder = teacher_folder(recipe, splits.fingerprint, home)
    teacher = open_teacher(recipe, folder) or teach(study, data, folder)
    _report(study, data, teacher, options)


def _report(study: StudyConfig, data: TrainingData, teacher: TrainedTeacher, options: argparse.Namespace) -> None:
    """Trains a student without a teacher to the middle and prints the ratios there and at the start."""
    network = teacher.load(torch.device("cpu"))
    hidden = HiddenMaps(network, normalize(data.train.pixels[:MEASURED_IMAGES]))
    logit_std = float(teacher.logits(torch.device("cpu")).float().std())
    width, depth = map(int, options.student.split("x"))
    student = build_student(UNetSpec(width=width, depth=depth, convs_per_stage=2, conv="standard"), seed=0)
    recipe = study.teacher.training.model_copy(update={"epochs": options.epochs, "learning_rate": 5e-3})
    plain = Supervised(student, recipe.supervised_loss)
    terms = _terms(student, network, hidden, logit_std, recipe.supervised_loss)
    optimizer = build_optimizer(student.parameters(), recipe)
    steps = len(data.train) // recipe.batch_size
    schedule = build_schedule(optimizer, recipe, steps=steps * recipe.epochs)
    generator = torch.Generator().manual_seed(0)
    cells: dict[tuple[str, str, str], list[str]] = {key: [] for key in terms}
    for epoch in range(options.epochs // 2 + 1):
        if epoch in (0, options.epochs // 2):
            chosen = torch.randperm(len(data.train), generator=generator).split(recipe.batch_size)[:BATCHES]
            batches = [draw_batch(data, part, recipe, generator) for part in chosen]
            for key, term in terms.items():
                ratios = [_ratio(student, term, plain, batch, key[-1]) for batch in batches]
                cells[key].append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
        for chosen in torch.randperm(len(data.train), generator=generator).tensor_split(steps):
            loss = plain(draw_batch(data, chosen, recipe, generator))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    print(f"{study.name}, student {options.student}, offset {hidden.offset:+.2f} cells, logits' std {logit_std:.2f}")
    print("| path | loss | scale | raw: start | raw: middle | common scale: start | common scale: middle |")
    print("|---|---|---|---|---|---|---|")
    for path, loss in dict.fromkeys((path, loss) for path, loss, _ in terms):
        row = [*cells[path, loss, "interpolate"], *cells[path, loss, "add"]]
        print(f"| {path} | {loss} | {TERM_LOSSES[loss].scales[path]:g} | {' | '.join(row)} |")


def _terms(
    student: UNet, network: Teacher, hidden: HiddenMaps, logit_std: float, kind: SupervisedLoss
) -> dict[tuple[str, str, str], Distillation]:
    """Every path and loss that this student can have, in both mixes."""
    terms = {}
    for mix, (path, losses) in itertools.product(("interpolate", "add"), LOSSES.items()):
        equal = student.map_channels[-1] == hidden.mean.shape[1]
        for loss in losses:
            if path == "hidden" and not equal and loss not in ANY_CHANNELS:
                continue
            softened = {"temperature": 2.0} if is_softened(path, loss) else {}
            settings = {"path": path, "loss": loss, "teacher_view": "weak", "weight": 1.0, **softened}
            spec = DistillationSpec.model_validate({"terms": (settings,), "loss_mix": mix})
            channels = student.map_channels
            term = Distillation(
                student,
                spec,
                kind,
                teacher=network,
                hidden={None: hidden},
                student_channels=channels,
                logit_std=logit_std,
            )
            initialize(term, torch.Generator().manual_seed(0))
            terms[path, loss, mix] = term
    return terms


def _ratio(student: nn.Module, term: Distillation, plain: Supervised, batch: Batch, mix: str) -> float:
    """Of the distilled term's gradient at weight 1 to the supervised one."""
    supervised = _gradient(student, plain(batch))
    whole = _gradient(student, term(batch))
    distilled = whole - supervised if mix == "add" else whole
    return float(distilled.norm() / supervised.norm())


def _gradient(student: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    gradients = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
    zeros = (torch.zeros_like(p) for p in student.parameters())
    return torch.cat([(zero if g is None else g).flatten() for g, zero in zip(gradients, zeros, strict=True)])


if __name__ == "__main__":
    main()
