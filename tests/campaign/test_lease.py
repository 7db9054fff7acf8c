"""A second driver is refused, and a dead one's lease is anyone's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa

from kdsearch.campaign.lease import TABLE, Lease
from kdsearch.errors import SearchError


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def _as_on_another_host(url):
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.update(TABLE).values(host="elsewhere", process=7, holder="other000-1-12345678"))


def test_second_driver_is_refused_and_told_who_runs(url):
    with Lease(url, "a"):
        with pytest.raises(SearchError, match=f"run already, by process {os.getpid()} on "), Lease(url, "a"):
            pass
        with Lease(url, "b"):
            pass
    with Lease(url, "a"):
        pass


def test_dead_process_on_this_machine_holds_nothing(url):
    program = (
        "import os, sys; from kdsearch.campaign.lease import Lease; Lease(sys.argv[1], 'a').__enter__(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program, url], check=False).returncode == 9
    with Lease(url, "a"):
        pass


def test_another_process_of_a_dead_one_s_number_holds_nothing(url):
    with Lease(url, "a", renewed_every_s=3600):
        machine = _holder(url).partition("-")[0]
        with sa.create_engine(url).begin() as connection:
            connection.execute(sa.update(TABLE).values(holder=f"{machine}-1-12345678"))
        with Lease(url, "a", renewed_every_s=3600):
            assert _holder(url) != f"{machine}-1-12345678"


def test_unreadable_process_still_holds_the_study(url, tmp_path):
    """As another user's where /proc is mounted with hidepid."""
    with Lease(url, "a", renewed_every_s=3600), pytest.raises(SearchError, match="run already, by process"):
        Lease(url, "a", processes=tmp_path).__enter__()


def test_a_container_of_the_same_name_whose_process_is_not_here_holds_the_study(url):
    with Lease(url, "a", renewed_every_s=3600):
        with sa.create_engine(url).begin() as connection:
            connection.execute(sa.update(TABLE).values(process=2**22 - 1, holder="other000-1-12345678"))
        with pytest.raises(SearchError, match="or wait 60 seconds if it has died"):
            Lease(url, "a").__enter__()


def test_driver_elsewhere_holds_the_study_until_it_no_longer_renews(url):
    first = Lease(url, "a", lasts_s=3600, renewed_every_s=3600)
    with first:
        _as_on_another_host(url)
        with pytest.raises(SearchError, match="by process 7 on elsewhere; stop that process, or wait 3600"):
            Lease(url, "a", lasts_s=3600).__enter__()
        time.sleep(1.1)
        with Lease(url, "a", lasts_s=1.0):
            pass


def test_renewal_keeps_the_lease_and_a_driver_that_slept_too_long_stops(url):
    with Lease(url, "a", lasts_s=1.0, renewed_every_s=0.2) as first:
        time.sleep(2.2)
        first.check()
        with pytest.raises(SearchError, match="run already"):
            Lease(url, "a", lasts_s=1.9).__enter__()
        _as_on_another_host(url)
        with pytest.raises(SearchError, match="taken over by process 7 on elsewhere; this driver stops"):
            _check_for_ten_seconds(first)


def test_lease_whose_row_was_removed_is_taken_again(url):
    with Lease(url, "a", renewed_every_s=0.1) as lease:
        with sa.create_engine(url).begin() as connection:
            connection.execute(sa.delete(TABLE))
        time.sleep(0.5)
        lease.check()
        with pytest.raises(SearchError, match="run already"):
            Lease(url, "a").__enter__()


def test_only_one_of_several_starting_drivers_gets_the_study(url):
    outcomes = []

    def begin():
        try:
            lease = Lease(url, "a").__enter__()
        except SearchError:
            outcomes.append("refused")
        else:
            outcomes.append("held")
            held.append(lease)

    held = []
    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 7
    held[0].__exit__()


def test_unusable_optuna_database_is_reported(tmp_path):
    with pytest.raises(SearchError, match="study a: cannot open its Optuna database"):
        Lease(f"sqlite:///{tmp_path / 'absent' / 'optuna.db'}", "a").__enter__()


def _holder(url):
    with sa.create_engine(url).begin() as connection:
        return connection.execute(sa.select(TABLE.c.holder)).scalar_one()


def _check_for_ten_seconds(lease):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lease.check()
        time.sleep(0.05)
