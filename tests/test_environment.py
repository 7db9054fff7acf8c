"""The C libraries heed what kdsearch sets for them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from kdsearch.environment import KEPT_MEMORY

AGAIN_AND_AGAIN = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    places = [libc.malloc(4 << 20) for _ in range(4)]
    for place in places:
        ctypes.memset(place, 1, 4 << 20)
    for place in places:
        libc.free(place)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(**given: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name != KEPT_MEMORY[0]} | given
    done = subprocess.run(
        [sys.executable, "-c", AGAIN_AND_AGAIN], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc here")
def test_freed_memory_is_kept_for_the_next_step():
    name, value = KEPT_MEMORY
    assert _page_faults(**{name: value}) < _page_faults() / 4
