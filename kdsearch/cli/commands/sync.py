"""``kdsearch sync``: brings MLflow level with a study's storage."""

from __future__ import annotations

import argparse
import os
from collections import Counter

from kdsearch.cli.command_line import command_line
from kdsearch.config.load import load_study, with_folders
from kdsearch.config.study import repeats_of
from kdsearch.errors import NotRunYetError
from kdsearch.files.home import home_folder
from kdsearch.search.mlflow_sync import sync_study
from kdsearch.tracking.location import choose_tracking


def run(options: argparse.Namespace) -> int:
    """Records what MLflow lacks, and says what it holds then."""
    study = with_folders(load_study(options.study), options.data)
    tracking = choose_tracking(study.tracking_uri, os.environ)
    for index, one in enumerate(repeats_of(study)):
        try:
            records = sync_study(one, home=home_folder(os.environ), tracking=tracking)
        except NotRunYetError:
            if index == 0:
                raise
            print(f"{one.name} has not been run yet.")
            continue
        counts = Counter(record.outcome for record in records)
        trials = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no trials yet"
        print(f"MLflow is level with study {one.name}: {trials}.")
    print(f"browse:  {command_line('ui', options.study)}")
    return 0
