"""Where the record is kept: a server that is silent, and passwords in its address."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from kdsearch.errors import KdsearchError
from kdsearch.tracking.location import Tracking, answers, choose_tracking


def test_silent_server_is_refused_before_anything_is_trained():
    assert not answers("http://127.0.0.1:9", timeout_s=0.5)
    with pytest.raises(KdsearchError, match="tracking: http://127.0.0.1:9 does not answer; start the server"):
        Tracking(uri="http://127.0.0.1:9").require()
    choose_tracking(None, {}).require()


def test_password_in_the_environment_s_uri_is_never_printed():
    tracking = choose_tracking(None, {"MLFLOW_TRACKING_URI": "postgresql+psycopg://me:secret@host/db"})
    assert tracking.shown == "postgresql+psycopg://me:***@host/db"
    assert "secret" not in tracking.link("1")
    server = Tracking(uri="http://me:secret@127.0.0.1:9")
    with pytest.raises(KdsearchError, match=r"http://me:\*\*\*@127.0.0.1:9 does not answer"):
        server.require()
    assert "secret" not in server.link("1")


@pytest.mark.parametrize("secret", ["p%40ss", "p%2Fs%20s"])
def test_password_is_masked_encoded_and_decoded(secret):
    tracking = Tracking(uri=f"https://me:{secret}@mlflow.example")
    assert tracking.mask(f"refused {unquote(secret)} and {secret}") == "refused *** and ***"
