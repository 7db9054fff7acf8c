"""Parses and formats numbers such as 820k, 0.82M and 820000."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from kdsearch.errors import KdsearchError

MOST = 10**15
"""Maximum value; networks have fewer parameters and multiply-adds."""
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_FORM = re.compile(r"([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?(?:e[0-9]+)?)\s*([kmg]?)", re.IGNORECASE)


def parse_quantity(text: str) -> int:
    """Parses ``820k``, ``0.82M`` or ``820_000`` as a whole number; raises KdsearchError for anything else."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise KdsearchError(f"{text!r} is not a number; write it as 820k, 0.82M or 820000")
    value = float(match[1].replace("_", "")) * _FACTORS[match[2].lower()]
    if not value <= MOST:
        raise KdsearchError(f"{text!r} is too large")
    return round(value)


def format_quantity(value: float) -> str:
    """Formats with three digits and a letter: ``820k``, ``1.23M``."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.9995:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.0f}"


def _from_text(value: object) -> object:
    if isinstance(value, int | float) and value > MOST:
        raise ValueError(f"must be at most {MOST:.0e}")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    try:
        return parse_quantity(value)
    except KdsearchError as error:
        raise ValueError(str(error)) from error


Quantity = Annotated[int, BeforeValidator(_from_text, json_schema_input_type=int | str), Field(gt=0)]
