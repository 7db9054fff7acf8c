"""Drivers for tests of this folder."""

from __future__ import annotations

import pytest

from kdsearch.config.load import load_study
from tests.search.fake_driver import TWELVE, make_session


@pytest.fixture
def session(study_file, tmp_path):
    """Makes drivers; see ``make_session``."""

    def make(*, home=None, text=TWELVE, **settings):
        return make_session(load_study(study_file(text)), home or tmp_path, **settings)

    return make
