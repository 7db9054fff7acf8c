"""Where a search's time went."""

from __future__ import annotations

import pytest

from kdsearch.campaign.events import JobStarted, LoadingData, SearchStarted, TrialEnded
from kdsearch.cli.profile import Profile
from kdsearch.trials.record import EpochReport, TrialRecord, job_of_trial
from kdsearch.trials.scores import Cost
from kdsearch.workers.jobs import EpochEnded
from tests.front.students import recipe


def _report(seconds):
    return EpochReport(epoch=1, epochs=9, train_loss=1, validation_loss=1, dice=0.5, learning_rate=0.1, seconds=seconds)


def _started(number):
    return JobStarted(job=job_of_trial(number), recipe=recipe(), cost=Cost(params=1, macs=1))


def _ended(number, outcome="finished"):
    return TrialEnded(record=TrialRecord(number=number, outcome=outcome, recipe=recipe()))


def test_time_is_split_into_training_its_surroundings_and_waiting():
    profile = Profile()
    for event, now in [
        (LoadingData(), 5.0),
        (SearchStarted(records=(), target=2, page="/"), 10.0),
        (_ended(9, "rejected"), 10.0),
        (_started(0), 10.0),
        (_started(1), 10.0),
        (EpochEnded(job=job_of_trial(0), report=_report(8.0)), 20.0),
        (EpochEnded(job=job_of_trial(1), report=_report(18.0)), 29.0),
        (_ended(0), 20.0 + 10.0),
        (_ended(1), 30.0 + 10.0),
    ]:
        profile.handle(event, now=now)
    whole, around, between, end = (share for _, share in profile.shares())
    assert whole == pytest.approx(100 * (30 / 13 - 1))
    assert around + between + end == pytest.approx(whole)
    assert between == pytest.approx(0.0, abs=0.1)
    assert end == pytest.approx(100 * 5 / 13)
    table = profile.table()
    assert table.title == "Profile: 30.0 s for 2 trials of 13.0 s on 2 worker(s)"
    assert table.row_count == 4


def test_trial_that_went_on_from_a_checkpoint_counts_with_what_it_trained_here():
    profile = Profile()
    profile.handle(SearchStarted(records=(), target=1, page="/"), now=0.0)
    profile.handle(_started(0), now=0.0)
    profile.handle(EpochEnded(job=job_of_trial(0), report=_report(500.0)), now=4.0)
    profile.handle(_ended(0), now=5.0)
    assert profile.training == 4.0


def test_nothing_trained_has_no_profile():
    assert Profile().table() is None
