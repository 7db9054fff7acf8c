"""``kdsearch ui``: MLflow's pages on a study's record, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import webbrowser

from kdsearch.config.load import read_study
from kdsearch.errors import KdsearchError
from kdsearch.tracking.location import Tracking, choose_tracking
from kdsearch.tracking.server import serving, store_exists


def run(options: argparse.Namespace) -> int:
    """Starts the server, prints or opens the front's link, and waits; afterwards nothing is left running."""
    study = read_study(options.study) if options.study is not None else None
    tracking = choose_tracking(study.tracking_uri if study else None, os.environ)
    if not store_exists(tracking):
        raise KdsearchError(f"{tracking.file}: no record yet; kdsearch run makes it, in the folder it is run in")
    front, *others = _pages(study.name, tracking) if study else ["/"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with serving(tracking, port=options.port) as server:
            link = f"{server.address}{front}"
            print("\n".join([link, *(f"{server.address}{page}" for page in others)]), flush=True)
            if options.open and not webbrowser.open(link):
                print("no browser could be opened; open the link yourself", flush=True)
            if tracking.database:
                print("Ctrl-C ends the server.", flush=True)
                server.end()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print("ended", flush=True)
    return 0


def _pages(study: str, tracking: Tracking) -> list[str]:
    """The study's views, that of its front first; its experiment where it has none."""
    from kdsearch.tracking.client import find_views  # takes seconds to import

    return [*find_views(tracking, study).values()]


def _interrupt(_number: int, _frame: object) -> None:
    """Ends the wait; a second signal does not disturb the server's end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(sys.stdout.fileno(), b"\nending ...\n")  # print may be in the middle of a line
    raise KeyboardInterrupt
