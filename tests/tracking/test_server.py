"""MLflow's server starts, and ends with everything it started."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket

import psutil
import pytest

from kdsearch.errors import KdsearchError
from kdsearch.tracking.location import Tracking
from kdsearch.tracking.server import HOST, serving


@pytest.mark.slow
def test_server_answers_only_on_loopback_and_leaves_nothing_running(tmp_path):
    before = set(psutil.Process().children(recursive=True))
    with serving(Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")) as server:
        port = int(server.address.rpartition(":")[2])
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
        stranger = http.client.HTTPConnection(HOST, port, timeout=10)
        stranger.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": "evil.example"})
        assert stranger.getresponse().status == 403
        stranger.close()
        processes = set(psutil.Process().children(recursive=True)) - before
        assert processes
        listening: set[str] = set()
        words: list[str] = []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # some end within a moment
                listening |= {connection.laddr.ip for connection in process.net_connections("tcp")}
                words += process.cmdline()
        assert listening == {HOST}
        (first,) = (process for process in processes if process.ppid() == os.getpid())
        first.kill()
        with pytest.raises(KdsearchError, match=r"MLflow's server on sqlite:///.* ended with exit code -9: "):
            server.end()
        assert not any(str(tmp_path) in word for word in words)
    psutil.wait_procs(processes, timeout=10)  # the first was killed, so nothing else waits for the others
    assert not [process for process in processes if process.is_running() and process.status() != "zombie"]


def test_server_that_cannot_start_says_why(tmp_path):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(KdsearchError, match=f"--port {port}: the port is in use"),
            serving(Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}"), port=port),
        ):
            pass
    (tmp_path / "broken.db").write_bytes(b"not a database" * 100)
    with (
        pytest.raises(KdsearchError, match=r"MLflow's server on sqlite:///.* ended with exit code \d+: .*"),
        serving(Tracking(uri=f"sqlite:///{tmp_path / 'broken.db'}")),
    ):
        pass


def test_server_that_already_runs_elsewhere_is_used():
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        uri = f"http://{HOST}:{server.getsockname()[1]}/"
        with serving(Tracking(uri=uri)) as other:
            assert other.address == uri.rstrip("/")
