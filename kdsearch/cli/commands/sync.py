"""``kdsearch sync``: brings MLflow level with a study's storage."""

from __future__ import annotations

import argparse
import os
from collections import Counter

from kdsearch.cli.next_steps import command_line
from kdsearch.config.load import read_study, with_folders
from kdsearch.files.home import home_folder
from kdsearch.workflow.run import sync


def run(options: argparse.Namespace) -> int:
    """Records what MLflow lacks, and reports what it holds then."""
    study = with_folders(read_study(options.study), options.data)
    for one, records in sync(study, home=home_folder(os.environ), environment=os.environ):
        if records is None:
            print(f"{one.name} has not been run yet.")
            continue
        counts = Counter(record.outcome for record in records)
        trials = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no trials yet"
        print(f"MLflow is level with study {one.name}: {trials}.")
    print(f"browse:  {command_line('ui', options.study)}")
    return 0
