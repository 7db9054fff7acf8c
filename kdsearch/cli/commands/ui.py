"""``kdsearch ui``: MLflow's pages on a study's record, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import webbrowser

from kdsearch.config.load import load_study
from kdsearch.errors import KdsearchError
from kdsearch.tracking.location import Tracking, choose_tracking
from kdsearch.tracking.server import serving, store_exists


def run(options: argparse.Namespace) -> int:
    """Starts the server, prints or opens the front's link, and waits; afterwards nothing is left running."""
    study = load_study(options.study) if options.study is not None else None
    tracking = choose_tracking(study.tracking_uri if study else None, os.environ)
    if not store_exists(tracking):
        raise KdsearchError(f"{tracking.file}: no record yet; kdsearch run makes it, in the folder it is run in")
    page = _page(study.name, tracking) if study else "/"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with serving(tracking, port=options.port) as address:
            link = f"{address}{page}"
            print(f"{link}", flush=True)
            if options.open and not webbrowser.open(link):
                print("no browser could be opened; open the link yourself", flush=True)
            if tracking.database:
                print("Ctrl-C ends the server.", flush=True)
                signal.pause()
    except KeyboardInterrupt:
        print("ended")
    return 0


def _page(study: str, tracking: Tracking) -> str:
    from kdsearch.tracking.experiment import find_front  # takes seconds to import

    return find_front(tracking, study)


def _interrupt(_number: int, _frame: object) -> None:
    """Ends the wait; a second signal does not disturb the server's end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
