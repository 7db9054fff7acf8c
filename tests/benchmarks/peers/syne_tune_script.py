"""A search by Syne Tune's multi-objective asynchronous halving with a local backend, as its documentation writes it.

    python tests/benchmarks/peers/syne_tune_script.py FOLDER OUT --seed 0 --seconds 600

Each trial is a process of ``syne_tune_trial.py``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

BEGAN = time.time()

from syne_tune import StoppingCriterion, Tuner  # noqa: E402 - what imports take is counted
from syne_tune.backend import LocalBackend  # noqa: E402
from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform  # noqa: E402
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA  # noqa: E402

TRIAL = Path(__file__).with_name("syne_tune_trial.py")
EPOCHS = 15


def main() -> None:
    """Searches until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    space = {
        "width": lograndint(4, 24),
        "growth": uniform(1, 2),
        "depth": randint(3, 5),
        "convs_per_stage": randint(1, 2),
        "conv": choice(["standard", "separable"]),
        "path": choice(["none", "logits", "attention", "regressor"]),
        "loss": choice(["kld", "mse"]),
        "weight": uniform(0.2, 1.0),
        "temperature": loguniform(1, 6),
        "learning_rate": loguniform(2e-3, 1e-2),
        "data": str(options.data.absolute()),
        "out": str(options.out.absolute()),
        "seed": options.seed,
        "began": BEGAN,
    }
    scheduler = MOASHA(
        space,
        metrics=["error", "log_params"],
        time_attr="epoch",
        max_t=EPOCHS,
        grace_period=3,
        random_seed=options.seed,
    )
    left = options.seconds - (time.time() - BEGAN)
    Tuner(
        trial_backend=LocalBackend(entry_point=str(TRIAL)),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_wallclock_time=left),
        n_workers=1,
        sleep_time=0.2,
        max_failures=1000,
    ).run()


if __name__ == "__main__":
    main()
