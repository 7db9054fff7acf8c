"""The team's server: a real PostgreSQL, a bucket, a real MLflow server with logins, two studies logging at once."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import boto3
import psutil
import pytest
import yaml

from mlflow import MlflowClient
from tests.postgres import PASSWORD
from tests.tiny import TINY

pytestmark = pytest.mark.slow

TEAM = Path(__file__).parents[2] / "mlflow" / "team"
ADMIN = "correct-horse-battery"


@pytest.fixture
def server(postgres, bucket, tmp_path):  # noqa: ARG001 - the environment tells the server of the bucket
    """The address of a running server, which is removed completely afterwards."""
    record, logins = (postgres.create(f"{name}_{uuid.uuid4().hex[:8]}") for name in ("record", "logins"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "TEAM_DATABASE": record,
        "TEAM_LOGINS_DATABASE": logins,
        "TEAM_ARTIFACTS": "s3://bucket/artifacts",
        "TEAM_HOSTS": f"127.0.0.1:{port}",
        "TEAM_PORT": str(port),
        "PGPASSWORD": PASSWORD,
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "0123456789abcdef",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log = tmp_path / "server.log"
    with log.open("w") as said:
        process = subprocess.Popen([TEAM / "serve.sh"], env=os.environ | settings, stdout=said, stderr=said)
    try:
        _wait(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        for member in (*family, process):
            member.terminate()
        process.wait(timeout=30)
        psutil.wait_procs(family, timeout=20)


def test_two_studies_log_simultaneously_and_unauthorized_users_are_refused(server, tmp_path, monkeypatch):
    port = int(server.rpartition(":")[2])
    assert _status(port, "/api/2.0/mlflow/experiments/get?experiment_id=0") == 401
    assert _status(port, "/health", host="evil.example") in (200, 403)
    assert _status(port, "/api/2.0/mlflow/experiments/get?experiment_id=0", host="evil.example") == 403
    login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": ADMIN, "MLFLOW_TRACKING_URI": server}
    runs = []
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(TINY.replace("name: tiny", f"name: {name}"), encoding="utf-8")
        command = [sys.executable, "-m", "kdsearch", "run", f"{name}.yaml"]
        environment = os.environ | login | {"KDSEARCH_HOME": str(tmp_path / name)}
        runs.append(
            subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    for run in runs:
        said, _ = run.communicate(timeout=300)
        assert run.returncode == 0, said
        assert ADMIN not in said
    for key, value in login.items():
        monkeypatch.setenv(key, value)
    client = MlflowClient(server)
    for name in ("one", "two"):
        found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
        kinds = sorted(run.data.tags["kdsearch.kind"] for run in found)
        assert kinds == ["study", "teacher", "trial", "trial", "trial"]
        assert {run.info.status for run in found} == {"FINISHED"}
        study = next(run for run in found if run.data.tags["kdsearch.kind"] == "study")
        assert "front.html" in {file.path for file in client.list_artifacts(study.info.run_id)}
        kept = boto3.client("s3").list_objects_v2(Bucket="bucket", Prefix="artifacts/")["Contents"]
        assert any(entry["Key"].endswith(f"{study.info.run_id}/artifacts/front.html") for entry in kept)


@pytest.mark.parametrize("missing", ["TEAM_DATABASE", "MLFLOW_AUTH_ADMIN_PASSWORD", "TEAM_HOSTS"])
def test_missing_setting_is_named(missing):
    names = re.findall(r'^: "\$\{(\w+):\?', (TEAM / "serve.sh").read_text(encoding="utf-8"), re.MULTILINE)
    settings = {name: "a-value-that-is-long" for name in names if name != missing}
    done = subprocess.run(
        [TEAM / "serve.sh"], env={"PATH": os.environ["PATH"]} | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert missing in done.stderr


def test_compose_file_contains_no_passwords():
    services = yaml.safe_load((TEAM / "compose.yaml").read_text(encoding="utf-8"))["services"]
    secrets = [
        value
        for service in services.values()
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|SECRET", key)
    ]
    assert len(secrets) >= 6
    assert all(re.fullmatch(r"\$\{\w+:\?.+\}", secret) for secret in secrets)
    assert all(port.startswith("127.0.0.1:") for port in services["mlflow"]["ports"])


def _status(port, path, *, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host} if host else {})
        return connection.getresponse().status
    finally:
        connection.close()


def _wait(port, process, log):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if _status(port, "/health") == 200:
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())
