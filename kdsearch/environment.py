"""Environment variables that the C libraries under torch read when a process starts."""

from __future__ import annotations

import os

SHORT_SPIN = ("GOMP_SPINCOUNT", "1000")
"""Idle threads of GNU OpenMP go to sleep sooner. By default they spin for so long that training with several threads
is fifteen times slower while another process is computing."""
KEPT_MEMORY = (
    "GLIBC_TUNABLES",
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=268435456",
)
"""glibc keeps up to 256 MiB of freed memory, in large pages, for the next training step. By default it returns this
memory to the kernel, which clears every page again; this takes up to a third of a small student's training time."""
SETTINGS = (SHORT_SPIN, KEPT_MEMORY)


def set_environment() -> None:
    """Sets these variables, unless they are set already, for this process and its children.

    Call it before torch is imported.
    """
    for name, value in SETTINGS:
        os.environ.setdefault(name, value)
