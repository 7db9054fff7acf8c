"""How long OpenMP's threads spin before they sleep."""

from __future__ import annotations

import os

SHORT_SPIN = ("GOMP_SPINCOUNT", "1000")


def spin_shortly() -> None:
    """Makes GNU OpenMP's threads sleep soon, in this process and its children; to be called before torch is loaded.

    By default they spin so long that training with several threads slows fifteen-fold beside a process that computes.
    """
    os.environ.setdefault(*SHORT_SPIN)
