"""Images per second on a GPU: students of several sizes, with and without CUDA graphs, one process and several.

    python tests/benchmarks/gpu.py

Prints a table of docs/results/speed.md. Every process trains the same student on 448 images of 64×64 pixels in batches
of 16, and validates it on 97.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from kdsearch.config.networks import UNetSpec
from kdsearch.config.task import square
from kdsearch.config.training import TrainingSpec
from kdsearch.distill.batches import Images, TrainingData
from kdsearch.distill.checkpoint import TrainingState
from kdsearch.distill.loop import draw_batch, predict_logits
from kdsearch.distill.objective import Supervised
from kdsearch.distill.optimization import Gradients
from kdsearch.environment import set_environment
from kdsearch.models.costs import cost_of
from kdsearch.models.students import build_student

SPECS = (
    UNetSpec(width=8, depth=3, growth=1, convs_per_stage=1, conv="separable"),
    UNetSpec(width=16, depth=4, growth=1),
    UNetSpec(width=16, depth=3),
)
IMAGES, VALIDATION, SIZE = 448, 97, 64


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one process is to do."""

    spec: UNetSpec
    graphs: bool
    precision: str
    epochs: int


def main() -> None:
    """Prints a line for each student, way and number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4, 8, 12])
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    set_environment()
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(max(options.processes))]
    started = [context.Process(target=_train, args=(theirs, options.device), daemon=True) for _, theirs in pipes]
    for process in started:
        process.start()
    ours = [one for one, _ in pipes]
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if options.device == 'cuda' else options.device}")
    _at_once(ours, Work(spec=SPECS[0], graphs=True, precision="float32", epochs=2))  # libraries are loaded
    print(
        "| parameters | precision | graphs | processes | images a second | of one process |\n|---|---|---|---|---|---|"
    )
    for spec in SPECS:
        params = cost_of(spec, square(SIZE)).params
        for graphs, precision in ((False, "float32"), (True, "float32"), (True, "bf16")):
            one = 0.0
            counts = options.processes if precision == "float32" else options.processes[:1]
            for count in counts:
                work = Work(spec=spec, graphs=graphs, precision=precision, epochs=options.epochs)
                rate = IMAGES * (options.epochs - 2) * sum(1 / seconds for seconds in _at_once(ours[:count], work))
                one = one or rate
                way = f"{precision} | {'yes' if graphs else 'no'}"
                print(f"| {params:,} | {way} | {count} | {rate:,.0f} | {rate / one:.2f} |", flush=True)
    for connection in ours:
        connection.close()


def _at_once(processes: list[Connection], work: Work) -> list[float]:
    for process in processes:
        process.send(work)
    return [process.recv() for process in processes]


def _train(connection: Connection, device: str) -> None:
    """Sends the seconds of all epochs but the first two."""
    torch.set_num_threads(1)
    data = TrainingData(train=_images(IMAGES, device), validation=_images(VALIDATION, device))
    while True:
        try:
            work: Work = connection.recv()
        except EOFError:
            return
        connection.send(_seconds(work, data))


def _seconds(work: Work, data: TrainingData) -> float:
    """Trains as kdsearch does, with or without graphs."""
    spec = TrainingSpec(epochs=work.epochs)
    student = build_student(work.spec, seed=0, device=data.device)
    steps = math.ceil(IMAGES / spec.batch_size)
    precision = torch.bfloat16 if work.precision == "bf16" else None
    state = TrainingState(student, None, spec, seed=0, steps=steps * work.epochs, precision=precision)
    gradients = Gradients(
        Supervised(student, spec.supervised_loss),
        state.parameters,
        state.scaler,
        device=data.device,
        precision=precision,
        graphs=work.graphs and data.device.type == "cuda",
    )
    began = 0.0
    for epoch in range(work.epochs):
        began = time.monotonic() if epoch == 2 else began
        student.train()
        for chosen in torch.randperm(IMAGES, generator=state.generator).tensor_split(steps):
            gradients(draw_batch(data, chosen, spec, state.generator))
            state.optimizer.step()
            state.schedule.step()
        predict_logits(student, data.validation.pixels).cpu()  # waits for the device
    return time.monotonic() - began


def _images(count: int, device: str) -> Images:
    generator = torch.Generator().manual_seed(count)
    gray, masks = (torch.randint(0, 256, (count, SIZE, SIZE), generator=generator, dtype=torch.uint8) for _ in range(2))
    return Images(pixels=gray.to(device)[:, None], masks=masks.to(device), sources=("s",) * count)


if __name__ == "__main__":
    main()
