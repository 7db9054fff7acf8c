"""Where the time of a training step goes, by part and by torch operation: docs/results/speed.md.

    python tests/benchmarks/parts.py

One thread, batches of 16, in the environment of a worker.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile

from kdsearch.config.networks import UNetSpec
from kdsearch.config.task import square
from kdsearch.config.training import TrainingSpec
from kdsearch.distill import losses
from kdsearch.distill.batches import Images, TrainingData
from kdsearch.distill.loop import draw_batch
from kdsearch.distill.optimization import build_optimizer
from kdsearch.environment import SETTINGS, set_environment
from kdsearch.models.costs import cost_of
from kdsearch.models.students import build_student

SPECS = (
    UNetSpec(width=4, depth=2, convs_per_stage=1, conv="separable"),
    UNetSpec(width=8, depth=3, growth=1, convs_per_stage=1, conv="separable"),
    UNetSpec(width=12, depth=4, growth=1, conv="separable"),
    UNetSpec(width=16, depth=4, growth=1),
    UNetSpec(width=16, depth=3),
)
PARTS = ("batch", "forward", "loss", "backward", "optimizer")
KINDS = {"conv": ("conv",), "batch norm": ("batch_norm",), "optimizer": ("Optimizer", "fused_adam")}
"""What torch calls the operations of each kind; the rest is activations, pooling, upsampling, copies and Python."""
BATCH, STEPS = 16, 30


def main() -> None:
    """Prints the tables, in a process that began with the environment of a worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    if any(os.environ.get(name) is None for name, _ in SETTINGS):
        set_environment()
        os.execv(sys.executable, [sys.executable, *sys.argv])
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {options.size}×{options.size}, batches of {BATCH}, one thread, medians in ms")
    print(f"| student | params | step | {' | '.join(PARTS)} | of torch's time: {' | '.join(KINDS)} | rest |")
    print("|---" * (len(PARTS) + len(KINDS) + 4) + "|")
    for spec in SPECS:
        params = f"{cost_of(spec, square(options.size)).params:,}"
        parts = measure(spec, options.size)
        kinds = shares(spec, options.size)
        times = " | ".join(f"{parts[name]:.1f}" for name in PARTS)
        fractions = " | ".join(f"{100 * kinds[name]:.0f} %" for name in (*KINDS, "rest"))
        print(f"| {spec.summary()} | {params} | {sum(parts.values()):.1f} | {times} | {fractions} |", flush=True)


def measure(spec: UNetSpec, size: int) -> dict[str, float]:
    """Median milliseconds of each part of a step."""
    found: dict[str, list[float]] = defaultdict(list)
    step = _step(spec, size)
    for _ in range(STEPS):
        for name, seconds in step().items():
            found[name].append(1e3 * seconds)
    return {name: statistics.median(times[3:]) for name, times in found.items()}


def shares(spec: UNetSpec, size: int) -> dict[str, float]:
    """Of the time that torch's operations take, each kind's."""
    step = _step(spec, size)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(STEPS // 3):
            step()
    found = dict.fromkeys((*KINDS, "rest"), 0.0)
    for event in profiled.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "rest")
        found[kind] += event.self_cpu_time_total
    total = sum(found.values())
    return {kind: time_taken / total for kind, time_taken in found.items()}


def _step(spec: UNetSpec, size: int):
    generator, training = torch.Generator().manual_seed(0), TrainingSpec()
    gray = torch.randint(0, 255, (64, size, size), generator=generator, dtype=torch.uint8)
    images = Images(pixels=gray[:, None], masks=(gray > 200).to(torch.uint8), sources=("s",) * 64)
    data = TrainingData(train=images, validation=images, teacher_logits=torch.randn(64, 1, size, size).half())
    student = build_student(spec).train()
    optimizer = build_optimizer(list(student.parameters()), training)

    def step() -> dict[str, float]:
        marks = [time.perf_counter()]
        chosen = torch.randperm(64, generator=generator)[:BATCH]
        batch = draw_batch(data, chosen, training, generator)
        marks.append(time.perf_counter())
        logits = student(batch.image)
        marks.append(time.perf_counter())
        loss = losses.supervised(logits, batch.target, training.supervised_loss)
        marks.append(time.perf_counter())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        marks.append(time.perf_counter())
        return {name: end - begin for name, begin, end in zip(PARTS, marks, marks[1:], strict=False)}

    return step


if __name__ == "__main__":
    main()
