"""Numbers as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.config.quantity import format_quantity, parse_quantity
from kdsearch.config.search import Limits
from kdsearch.errors import KdsearchError


@pytest.mark.parametrize("text", ["820k", "0.82M", "820000", "820_000", "820K", " 820 k ", "82e4"])
def test_spellings_of_one_number(text):
    assert parse_quantity(text) == 820_000


@pytest.mark.parametrize("text", ["", "k", "1x", "-5", "1.2.3", "nan", "1 000", "0x10"])
def test_anything_else_is_refused(text):
    with pytest.raises(KdsearchError, match="is not a number"):
        parse_quantity(text)


def test_whole_float_is_a_number():
    assert Limits.model_validate_json('{"params": 1e6}').params == 1_000_000


@given(st.integers(min_value=1, max_value=10**11))
def test_printed_commands_can_be_run(value):
    assert parse_quantity(format_quantity(value)) == pytest.approx(value, rel=0.006, abs=0.5)
