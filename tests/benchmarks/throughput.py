"""Images per second by student size, for one worker per core and one process with several threads.

    python tests/benchmarks/throughput.py

Prints a table of docs/results/speed.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.synchronize import Barrier

import torch

from kdsearch.config.networks import UNetSpec
from kdsearch.config.training import TeacherTraining
from kdsearch.distill.batches import Images, TrainingData
from kdsearch.distill.loop import train
from kdsearch.distill.objective import Supervised
from kdsearch.models.students import build_student

SPECS = (
    UNetSpec(width=4, depth=2, convs_per_stage=1, conv="separable"),
    UNetSpec(width=8, depth=3, convs_per_stage=2, conv="separable"),
    UNetSpec(width=8, depth=3, convs_per_stage=2, conv="standard"),
    UNetSpec(width=16, depth=3, convs_per_stage=2, conv="standard"),
)
IMAGES = 96


def main() -> None:
    """Prints images per second of training, validation included."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.size}×{options.size}, {options.epochs} epochs of {IMAGES} images")
    print("student                 params  one thread  two workers of one  one process of two  ratio")
    measured = {"size": options.size, "epochs": options.epochs}
    for spec in SPECS:
        one = together(spec, workers=1, threads=1, **measured)
        turns = [
            (together(spec, workers=2, threads=1, **measured), together(spec, workers=1, threads=2, **measured))
            for _ in range(2)
        ]
        two, wide = (sum(turn[side] for turn in turns) / len(turns) for side in (0, 1))
        params = sum(p.numel() for p in build_student(spec, device="meta").parameters())
        name = f"{spec.width}×{spec.depth}, {spec.convs_per_stage} {spec.conv}"
        print(f"{name:20} {params:9} {one:11.0f} {two:19.0f} {wide:19.0f} {two / wide:6.2f}")


def together(spec: UNetSpec, *, size: int, epochs: int, workers: int, threads: int) -> float:
    """Images a second of all workers, which begin at once."""
    context = multiprocessing.get_context("spawn")
    barrier, times = context.Barrier(workers), context.Queue()
    arguments = (spec, size, epochs, threads, barrier, times)
    processes = [context.Process(target=_work, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    slowest = max(times.get() for _ in processes)
    for process in processes:
        process.join()
    return workers * epochs * IMAGES / slowest


def _work(spec: UNetSpec, size: int, epochs: int, threads: int, barrier: Barrier, times: multiprocessing.Queue) -> None:
    torch.set_num_threads(threads)
    gray = torch.randint(0, 255, (IMAGES, size, size), dtype=torch.uint8)
    images = Images(pixels=gray[:, None], masks=(gray > 200).to(torch.uint8), sources=("s",) * IMAGES)
    data = TrainingData(
        train=images, validation=Images(pixels=gray[:16, None], masks=images.masks[:16], sources=("s",) * 16)
    )
    training = TeacherTraining(epochs=epochs + 1)
    student = build_student(spec)
    reports = train(student, Supervised(student, training.supervised_loss), data, training, seed=0)
    next(reports)
    barrier.wait()
    started = time.perf_counter()
    for _ in reports:
        pass
    times.put(time.perf_counter() - started)


if __name__ == "__main__":
    main()
