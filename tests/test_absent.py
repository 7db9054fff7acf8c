"""A skip that is not allowed is a failure."""

from __future__ import annotations

import pytest

from tests.absent import absent


def test_absent_requirements_skip_tests_unless_required(monkeypatch):
    monkeypatch.delenv("KDSEARCH_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        absent("browser", "no Chromium")
    monkeypatch.setenv("KDSEARCH_REQUIRE", "postgres,browser")
    with pytest.raises(pytest.fail.Exception, match="KDSEARCH_REQUIRE names browser, but no Chromium"):
        absent("browser", "no Chromium")
    with pytest.raises(pytest.skip.Exception):
        absent("realdata", "no images")
