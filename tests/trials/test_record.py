"""Stored trials, including those of earlier releases."""

from __future__ import annotations

import json
import math

import pytest

from kdsearch.errors import KdsearchError
from kdsearch.trials.recipe import Inherited
from kdsearch.trials.record import (
    EpochReport,
    TrialRecord,
    dump_cost,
    dump_curve,
    read_cost,
    read_curve,
    students_of,
)
from kdsearch.trials.scores import Cost
from tests.front.students import student

CURVE = (
    EpochReport(epoch=1, epochs=2, train_loss=1, validation_loss=math.nan, dice=0.5, learning_rate=0.1, seconds=2),
)


def test_curve_has_a_schema_and_older_curves_are_read():
    now = dump_curve(CURVE)
    assert json.loads(now)["schema"] == 1
    before = (
        '[{"epoch":1,"epochs":2,"train_loss":1.0,"validation_loss":NaN,"dice":0.5,"learning_rate":0.1,"seconds":2.0}]'
    )
    for text in (now, before, now.encode()):
        (report,) = read_curve(text)
        assert (report.epoch, report.dice) == (1, 0.5)
        assert math.isnan(report.validation_loss)
    assert read_curve("[]") == ()


def test_cost_has_a_schema_and_older_costs_are_read():
    cost = Cost(params=7, macs=9)
    assert json.loads(dump_cost(cost)) == {"schema": 1, "params": 7, "macs": 9}
    assert read_cost(dump_cost(cost)) == read_cost('{"params":7,"macs":9}') == cost


@pytest.mark.parametrize(("read", "what"), [(read_curve, "learning curve"), (read_cost, "cost")])
def test_content_of_a_newer_release_is_refused(read, what):
    with pytest.raises(KdsearchError, match=f"{what}: written by a newer release of kdsearch"):
        read('{"schema": 99}')


def test_student_includes_the_cost_of_its_donors():
    """Trial 2 was cut from 1, which was cut from 0; each was trained for three epochs in one second."""
    records = []
    for number, donor in enumerate((None, 0, 1)):
        made = student(number, 0.5, 100 - number)
        start = None if donor is None else Inherited(donor=donor, scratch_epochs=4)
        recipe = made.recipe.model_copy(update={"start": start})
        records.append(TrialRecord(number=number, outcome="finished", recipe=recipe, scores=made.scores))
    students = students_of(tuple(records))
    assert [one.donor_epochs for one in students] == [0, 3, 6]
    assert [one.donor_seconds for one in students] == [0.0, 1.0, 2.0]
    assert [one.cost_with_donors() for one in students] == [
        {},
        {"epochs_with_donors": 6, "train_seconds_with_donors": 2.0},
        {"epochs_with_donors": 9, "train_seconds_with_donors": 3.0},
    ]
