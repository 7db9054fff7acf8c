"""The command line: finds the command, runs it, and prints a user's mistake on one screen."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence

from kdsearch.cli.parser import build_parser
from kdsearch.cli.pipes import outlive_readers
from kdsearch.cli.terminal import print_anything
from kdsearch.environment import set_environment
from kdsearch.errors import KdsearchError

USER_ERROR = 2
INTERRUPTED = 130
EXTRAS = {"psycopg": "postgres", "boto3": "s3", "s3fs": "s3", "ray": "ray"}
"""Which of kdsearch's extras a package comes with."""


def main(arguments: Sequence[str] | None = None, *, platform: str = sys.platform) -> int:
    """Runs one command; the exit code is 0, 1 for "no such student", 2 for a user's mistake, 130 after Ctrl-C.

    A reader of the output that leaves, such as ``head``, changes neither the work nor the code.
    """
    outlive_readers()
    print_anything((sys.stdout, sys.stderr))
    options = build_parser().parse_args(arguments)
    if platform == "win32":
        print(f"kdsearch {options.command}: Windows is not supported; run kdsearch in WSL, on Linux or on macOS",
              file=sys.stderr)  # fmt: skip
        return USER_ERROR
    set_environment()
    try:
        command = importlib.import_module(f"kdsearch.cli.commands.{options.command}")
        logging.getLogger("optuna").setLevel(logging.ERROR)  # what matters, kdsearch says itself
        return int(command.run(options))
    except ModuleNotFoundError as error:
        if (error.name or "kdsearch").startswith("kdsearch"):
            raise
        extra = EXTRAS.get(error.name or "")
        remedy = (
            f"the extra {extra} brings it along" if extra else "installing kdsearch without --no-deps brings it along"
        )
        print(
            f"kdsearch {options.command}: needs the package {error.name}, which is not installed; {remedy}",
            file=sys.stderr,
        )
        return USER_ERROR
    except KdsearchError as error:
        print(f"kdsearch {options.command}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        print(f"kdsearch {options.command}: {what}", file=sys.stderr)
        return USER_ERROR
