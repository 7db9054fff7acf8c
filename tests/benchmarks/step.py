"""Time of a step with cached teacher logits, without a teacher, and with the teacher run: docs/results/speed.md.

python tests/benchmarks/step.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from kdsearch.config.distillation import DistillationSpec
from kdsearch.config.networks import TeacherConfig, UNetSpec
from kdsearch.config.task import square
from kdsearch.config.training import TeacherTraining
from kdsearch.distill.batches import Images, TrainingData
from kdsearch.distill.feature_maps import HiddenMaps
from kdsearch.distill.loop import draw_batch
from kdsearch.distill.objective import Distillation, Supervised
from kdsearch.distill.optimization import build_optimizer
from kdsearch.models.contract import normalize
from kdsearch.models.students import build_student
from kdsearch.models.teacher import build_teacher

BATCH = 16


def main() -> None:
    """Prints milliseconds and ratios, taking turns between the steps so that drift hits all alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.device}, {options.threads} thread(s), "
        f"{options.size}×{options.size}, batch {BATCH}"
    )
    teacher = (
        build_teacher(TeacherConfig(), square(options.size))
        .eval()
        .requires_grad_(requires_grad=False)
        .to(options.device)
    )
    data = _data(teacher, options.size, torch.device(options.device))
    for width, depth, kind in ((8, 3, "standard"), (16, 3, "standard"), (16, 4, "separable")):
        spec = UNetSpec(width=width, depth=depth, convs_per_stage=2, conv=kind)
        _report(spec, _steps(spec, teacher, data), options.rounds)


def _data(teacher: torch.nn.Module, size: int, device: torch.device) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    gray = torch.randint(0, 255, (64, size, size), generator=generator, dtype=torch.uint8).to(device)
    masks = (torch.rand(64, size, size, generator=generator) > 0.8).to(torch.uint8).to(device)
    images = Images(pixels=gray[:, None], masks=masks, sources=("s",) * 64)
    with torch.no_grad():
        return TrainingData(train=images, validation=images, teacher_logits=teacher(normalize(gray)).half())


def _steps(spec: UNetSpec, teacher: torch.nn.Module, data: TrainingData) -> dict[str, Callable[[], None]]:
    training = TeacherTraining()
    plain = TrainingData(train=data.train, validation=data.validation)
    hidden = HiddenMaps(teacher, normalize(data.train.pixels))
    steps = {}
    for name, path, view in (
        ("plain", None, None),
        ("logits cached", "logits", "weak"),
        ("logits online", "logits", "same"),
        ("attention", "attention", "weak"),
        ("regressor", "regressor", "weak"),
    ):
        student = build_student(spec, device=data.device)
        objective = Supervised(student, "dice_cross_entropy")
        if path is not None:
            term = {"path": path, "loss": "kld", "teacher_view": view, "weight": 0.5}
            distillation = DistillationSpec.model_validate({"terms": (term,), "loss_mix": "add"})
            objective = Distillation(
                student,
                distillation,
                "dice_cross_entropy",
                teacher=teacher,
                hidden={None: hidden},
                student_channels=student.map_channels,
            ).to(data.device)
        steps[name] = _step(student, objective, data if (path, view) == ("logits", "weak") else plain, training)
    return steps


def _step(student, objective, data, training) -> Callable[[], None]:
    optimizer = build_optimizer(student.parameters(), training)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        loss = objective(draw_batch(data, torch.randperm(64, generator=generator)[:BATCH], training, generator))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if data.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def _report(spec: UNetSpec, steps: dict[str, Callable[[], None]], rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    print(f"student {spec.width}×{spec.depth}, 2 {spec.conv}")
    for name, taken in seconds.items():
        ratios = [mine / plain for mine, plain in zip(taken[2:], seconds["plain"][2:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"  {name:17} {1e3 * statistics.median(taken[2:]):7.1f} ms   "
            f"{middle:.2f} times plain (quartiles {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
