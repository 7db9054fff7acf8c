"""Starts and stops MLflow's server for a study's database."""

from __future__ import annotations

import contextlib
import http
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kdsearch.errors import KdsearchError
from kdsearch.tracking.location import PORT, Tracking, answers, is_made

HOST = "127.0.0.1"
READY_WITHIN_S = 120.0
ENDS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A running server."""

    address: str
    end: Callable[[], None]
    """Waits until the server exits, then raises KdsearchError with what it printed; returns at once for servers that
    kdsearch did not start."""


@contextlib.contextmanager
def serving(tracking: Tracking, *, port: int | None = None) -> Iterator[Serving]:
    """Starts the server on this machine, yields when it answers, and stops it and its workers afterwards.

    The port is ``port`` (default: 5000, or any free port). If the tracking URI is a server, starts nothing and yields
    its address. Raises KdsearchError with the server's output if it does not start.
    """
    if not tracking.database:
        tracking.require()
        yield Serving(address=tracking.shown.rstrip("/"), end=lambda: None)
        return
    if port is not None and answers(f"http://{HOST}:{port}", timeout_s=1.0):
        raise KdsearchError(f"--port {port}: the port is in use; choose another, or leave the option out")
    if tracking.file is not None and tracking.file.exists() and not is_made(tracking.file):
        raise KdsearchError(
            f"{tracking.file}: this MLflow database is incomplete, because creating it was interrupted; kdsearch run "
            "or kdsearch sync creates it again"
        )
    chosen = port or _free_port()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - our own words
            _command(chosen), stdout=output, stderr=output, env=_environment(tracking), start_new_session=True
        )

        def failed(why: str) -> KdsearchError:
            output.seek(0)
            last = output.read().decode(errors="replace").strip().splitlines()[-3:]
            printed = tracking.mask(" / ".join(last)) or "it printed nothing"
            return KdsearchError(f"MLflow's server on {tracking.shown} {why}: {printed}")

        def end() -> None:
            raise failed(f"ended with exit code {process.wait()}")

        try:
            _wait(process, chosen)
            yield Serving(address=f"http://{HOST}:{chosen}", end=end)
        except _NotReadyError as error:
            raise failed(str(error)) from None
        finally:
            _end(process)


class _NotReadyError(Exception):
    """The server exited or did not answer in time."""


def _command(port: int) -> list[str]:
    hosts = f"localhost:{port},{HOST}:{port}"
    words = ["server", "--host", HOST, "--port", str(port), "--allowed-hosts", hosts, "--workers", "1"]
    return [sys.executable, "-m", "mlflow", *words]


def _environment(tracking: Tracking) -> dict[str, str]:
    """Passes the database's URI in the environment, because it may contain a password and process lists show arguments.

    Disables MLflow's jobs, which evaluate language models: they take half of the start-up time and most of the memory.
    """
    place = tracking.artifact_location() or ""
    usual = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return usual | os.environ | {"MLFLOW_BACKEND_STORE_URI": tracking.uri, "MLFLOW_DEFAULT_ARTIFACT_ROOT": place}


def _free_port() -> int:
    for port in (PORT, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
    raise KdsearchError(f"no port is free on {HOST}; choose one with --port")


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise _NotReadyError(f"ended with exit code {process.returncode}")
        if _is_healthy(port):
            return
        time.sleep(0.2)
    raise _NotReadyError(f"did not answer within {READY_WITHIN_S:.0f} seconds")


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stops the server and its workers, which are in the same process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_WITHIN_S)
            if number == signal.SIGTERM and not _group_lives(process.pid):
                return


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def store_exists(tracking: Tracking) -> bool:
    """Whether MLflow's database exists; True for servers."""
    return tracking.file is None or tracking.file.exists()
