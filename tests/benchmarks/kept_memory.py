"""Images per second with and without glibc keeping memory for the next step: docs/results/speed.md.

    python tests/benchmarks/kept_memory.py

Each measurement is a new process, because glibc reads its settings only once; the order is A B A B.
"""

from __future__ import annotations

import argparse
import os

import torch

from kdsearch.config.networks import UNetSpec
from kdsearch.config.task import square
from kdsearch.environment import KEPT_MEMORY
from kdsearch.models.costs import cost_of
from tests.benchmarks.throughput import together

SPECS = (
    UNetSpec(width=4, depth=2, convs_per_stage=1, conv="separable"),
    UNetSpec(width=12, growth=1, depth=4, conv="separable"),
    UNetSpec(width=16, growth=1, depth=4),
    UNetSpec(width=16, depth=3),
)
ROUNDS = 3


def main() -> None:
    """Prints means, with the smallest and the largest in parentheses, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    name, value = KEPT_MEMORY
    print(f"torch {torch.__version__}, {options.size}×{options.size}, one thread, {ROUNDS} rounds")
    print("| student | params | glibc's default | kept | ratio |\n|---|---|---|---|---|")
    for spec in SPECS:
        found: dict[str, list[float]] = {"": [], value: []}
        for _ in range(ROUNDS):
            for setting, rates in found.items():
                os.environ[name] = setting
                rates.append(together(spec, size=options.size, epochs=options.epochs, workers=1, threads=1))
        usual, kept = (sum(rates) / len(rates) for rates in found.values())
        cells = [f"{sum(r) / len(r):.0f} ({min(r):.0f}–{max(r):.0f})" for r in found.values()]
        params = f"{cost_of(spec, square(options.size)).params:,}"
        print(f"| {spec.summary()} | {params} | {' | '.join(cells)} | {kept / usual:.2f} |", flush=True)


if __name__ == "__main__":
    main()
