"""The command line: parses it, runs the command, and prints a user's mistake on one screen."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kdsearch.cli.parser import parse
from kdsearch.cli.terminal import outlive_readers, print_anything
from kdsearch.environment import set_environment
from kdsearch.errors import KdsearchError

USER_ERROR = 2
INTERRUPTED = 130
EXTRAS = {"psycopg": "postgres", "boto3": "s3", "s3fs": "s3", "ray": "ray"}
"""Which extra of kdsearch installs a package."""


def main(arguments: Sequence[str] | None = None, *, platform: str = sys.platform) -> int:
    """Runs one command; returns 0, 1 for "no such student", 2 for a user's mistake or 130 after Ctrl-C.

    If the reader of the output exits, such as ``head``, the command continues and its exit code stays the same.
    """
    outlive_readers()
    print_anything((sys.stdout, sys.stderr))
    options = parse(sys.argv[1:] if arguments is None else arguments)
    name = f"kdsearch {options.command}"
    if platform == "win32":
        return _fail(f"{name}: Windows is not supported; run kdsearch in WSL, on Linux or on macOS")
    set_environment()
    try:
        return int(options.run(options))
    except ModuleNotFoundError as error:
        if (error.name or "kdsearch").startswith("kdsearch"):
            raise
        return _fail(f"{name}: {_missing(error.name or '')}")
    except KdsearchError as error:
        return _fail(f"{name}: {error}")
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return _fail(f"{name}: {f'{error.filename}: {error.strerror}' if error.filename is not None else error}")


def _missing(package: str) -> str:
    extra = EXTRAS.get(package)
    remedy = f"pip install 'kdsearch[{extra}]'" if extra else "install kdsearch without --no-deps"
    return f"needs the package {package}, which is not installed; {remedy}"


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return USER_ERROR
