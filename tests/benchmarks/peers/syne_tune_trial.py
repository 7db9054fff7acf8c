"""One trial of ``syne_tune_script.py``."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

from syne_tune import Reporter
from training import Script, Settings

from kdsearch.config.task import square
from kdsearch.models.costs import cost_of

FIELDS = {field.name: field.type for field in dataclasses.fields(Settings)}
KINDS = {"int": int, "float": float, "str": str}


def main() -> None:
    """Trains one student and reports each epoch; a student over the limits ends at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in FIELDS.items():
        parser.add_argument(f"--{name}", type=KINDS[str(kind)], required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--began", type=float, required=True)
    options, more = parser.parse_known_args()
    settings = Settings(**{name: getattr(options, name) for name in FIELDS})
    report = Reporter()
    cost = cost_of(settings.spec, square(64))
    log_params = math.log10(cost.params)
    if not settings.fits():
        report(epoch=1, error=1.0, log_params=log_params)
        return
    number = int(Path(more[more.index("--st_checkpoint_dir") + 1]).parent.name)
    script = Script(options.data, options.out, seed=options.seed, began=options.began)
    script.make(
        settings,
        number=number,
        report=lambda epoch, dice: report(epoch=epoch, error=1 - dice, log_params=log_params),
    )


if __name__ == "__main__":
    main()
