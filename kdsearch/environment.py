"""What the C libraries below torch read of their environment when a process starts."""

from __future__ import annotations

import os

SHORT_SPIN = ("GOMP_SPINCOUNT", "1000")
"""GNU OpenMP's threads sleep soon. By default they spin so long that training with several threads slows fifteen-fold
beside a process that computes."""
KEPT_MEMORY = (
    "GLIBC_TUNABLES",
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=268435456",
)
"""glibc keeps up to 256 MiB that a training step frees for the next step, in large pages. By default it gives them back
to the kernel, which clears every page again: up to a third of a small student's time."""
SETTINGS = (SHORT_SPIN, KEPT_MEMORY)


def set_environment() -> None:
    """Sets what the environment does not name already, for this process's children and for torch's threads in it.

    To be called before torch is loaded.
    """
    for name, value in SETTINGS:
        os.environ.setdefault(name, value)
