"""Counts the kdsearch modules and functions that one inline trial of one epoch executes.

python tests/benchmarks/modules.py
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

STUDY = """
name: one
data:
  sources: [{reader: phantom, images: 40}]
  size: 32
teacher:
  encoder_depth: 3
  weights: none
  training: {epochs: 1}
student: {width: {int: [2, 4]}, depth: 2}
distillation: {path: logits}
training: {epochs: 1}
search: {trials: 1, executor: inline}
"""


def main() -> None:
    """Runs the study under a profiler and prints what was executed."""
    import kdsearch
    from kdsearch.cli.main import main as run

    root = Path(kdsearch.__file__).parent
    executed: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        # bodies of modules and classes are executed by an import; only calls of functions count
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            executed.add(frame.f_code)

    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        Path("one.yaml").write_text(STUDY, encoding="utf-8")
        sys.setprofile(note)
        try:
            code = run(["run", "one.yaml"])
        finally:
            sys.setprofile(None)
    ours = [code_ for code_ in executed if Path(code_.co_filename).is_relative_to(root)]
    named = [code_ for code_ in ours if not code_.co_name.startswith("<")]
    modules = Counter(str(Path(code_.co_filename).relative_to(root)) for code_ in named)
    loaded = sum(name.split(".")[0] == "kdsearch" for name in sys.modules)
    for module, functions in sorted(modules.items()):
        print(f"{functions:4}  {module}")
    print(f"exit code {code}; {len(modules)} modules, {len(named)} functions executed; {loaded} modules loaded")


if __name__ == "__main__":
    main()
