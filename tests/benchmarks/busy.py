"""How fast a teacher trains with all cores, with and without short spinning, idle and while other processes compute.

    python tests/benchmarks/busy.py

Prints a table of docs/results/speed.md. Each measurement is a new process, because OpenMP reads its settings only once;
the order is A B A B.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from kdsearch.environment import SHORT_SPIN
from kdsearch.measure.latency import cores

ROUNDS = 2
SECONDS = 15
STEPS = """
import sys, time, torch
from kdsearch.config.networks import TeacherConfig
from kdsearch.models.teacher import build_teacher
torch.set_num_threads(int(sys.argv[1]))
teacher = build_teacher(TeacherConfig(encoder_depth=4, weights="none"), square(64))
images = torch.randn(16, 1, 64, 64)
optimizer = torch.optim.AdamW(teacher.parameters())
def step():
    optimizer.zero_grad()
    teacher(images).square().mean().backward()
    optimizer.step()
step()
began, done = time.monotonic(), 0
while time.monotonic() - began < float(sys.argv[2]):
    step()
    done += 1
print(done / (time.monotonic() - began))
"""
LOAD = "while True: sum(i * i for i in range(10_000))"


def main() -> None:
    """Prints steps per second and ratios."""
    found: dict[tuple[str, str], list[float]] = {}
    for place in ("idle", "loaded"):
        load = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(2 if place == "loaded" else 0)]
        try:
            for _ in range(ROUNDS):
                for name in ("default", "short spin"):
                    found.setdefault((place, name), []).append(_rate(short=name == "short spin"))
        finally:
            for process in load:
                process.kill()
                process.wait()
    print(f"{cores()} threads, {SECONDS} s each, {ROUNDS} rounds: steps a second")
    print("| | default | GOMP_SPINCOUNT=1000 | ratio |\n|---|---|---|---|")
    for place in ("idle", "loaded"):
        a, b = found[place, "default"], found[place, "short spin"]
        texts = [f"{statistics.mean(rates):.2f} ({min(rates):.2f}–{max(rates):.2f})" for rates in (a, b)]
        print(f"| {place} | {texts[0]} | {texts[1]} | {statistics.mean(b) / statistics.mean(a):.2f} |")


def _rate(*, short: bool) -> float:
    environment = {name: value for name, value in os.environ.items() if name != SHORT_SPIN[0]}
    environment |= dict([SHORT_SPIN]) if short else {}
    command = [sys.executable, "-c", STEPS, str(cores()), str(SECONDS)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
