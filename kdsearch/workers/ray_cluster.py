"""Runs jobs on a Ray cluster; images and the teacher are sent once to each node."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from kdsearch.config.search import RayConfig, SearchConfig
from kdsearch.distill.materials import MOST_KEPT, Materials, Trainers
from kdsearch.environment import SETTINGS, set_environment
from kdsearch.errors import SearchError, first_line
from kdsearch.files.atomic import discard
from kdsearch.workers.jobs import ENDS, Event, Job, JobFailed, Resources, WorkerLost, carry_out, threads_for

ANSWERS_WITHIN_S = 5.0
logger = logging.getLogger(__name__)


class RayWorker:
    """A Ray actor that runs jobs on a node."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._trainers = Trainers(torch.device(resources.device))
        self._called_off: set[str] = set()

    def work(self, job: Job, materials: Materials) -> Iterator[Event]:
        """Yields the job's events; Ray passes the materials from the node's object store."""
        self._called_off.discard(job.id)  # a job that was stopped may be given to this worker again
        torch.set_num_threads(threads_for(job, self._resources))
        with contextlib.closing(carry_out(self._trainers, job, materials=lambda: materials)) as events:
            for event in events:
                yield event
                if job.id in self._called_off and not isinstance(event, ENDS):
                    discard(job.checkpoint)
                    return

    def stop(self, job_id: str) -> None:
        """Ends the job after its current epoch; called while ``work`` runs."""
        self._called_off.add(job_id)


@dataclass(slots=True)
class _Slot:
    actor: Any
    """The handle of a RayWorker."""
    job: Job | None = None
    events: Any = None
    """Ray's generator of references to events."""
    begun: bool = False
    """Whether Ray has placed the worker on a node and it runs the job."""
    stop_by: float | None = None
    """As for a worker process."""


class RayExecutor:
    """Runs as many workers as fit on the cluster, and at most ``workers``."""

    def __init__(self, config: RayConfig, resources: Resources, *, workers: int | None) -> None:
        """Connects to the cluster; raises SearchError if it cannot be reached or has no node that is large enough."""
        set_environment()
        self._ray = connect(config)
        self._config, self._most = config, workers
        self._resources = resources
        self._packed: OrderedDict[str, Any] = OrderedDict()
        """References to the last few materials; Ray's object store frees materials without references."""
        self._without_teacher: set[str] = set()
        self._actor = self._ray.remote(
            num_cpus=config.cpus_per_trial, num_gpus=config.gpus_per_trial, max_concurrency=2, max_restarts=0
        )(RayWorker)
        self._slots: list[_Slot] = []
        if not self._capacity():
            self.close()
            raise SearchError(
                f"search.ray: a trial needs {config.cpus_per_trial:g} CPUs and {config.gpus_per_trial:g} GPUs, and no "
                "node of the cluster has so many; lower cpus_per_trial or gpus_per_trial, or start larger nodes"
            )

    def room(self) -> int:
        """How many more workers fit on the cluster now."""
        busy = sum(slot.job is not None for slot in self._slots)
        return max(0, self._capacity() - busy)

    def submit(self, job: Job) -> None:
        """Gives the job to a free worker, or to a new one if none is free."""
        slot = next((slot for slot in self._slots if slot.job is None), None)
        if slot is None:
            slot = _Slot(self._actor.remote(self._resources))
            self._slots.append(slot)
        self._give(slot, job)

    def stop(self, job_id: str, *, within_s: float) -> None:
        """Asks the job's worker to stop after its epoch; it is busy until it answers or is killed."""
        for slot in self._carrying(job_id):
            slot.stop_by = time.monotonic() + within_s
            slot.actor.stop.remote(job_id)

    def drop(self, job_id: str) -> None:
        for slot in self._carrying(job_id):
            self._ray.kill(slot.actor)
            self._slots.remove(slot)

    def poll(self, timeout_s: float) -> list[Event]:
        self._move_unplaced()
        self._end_hanging()
        by_events = {slot.events: slot for slot in self._slots if slot.job is not None}
        if not by_events:
            time.sleep(timeout_s)
            return []
        self._ray.wait(list(by_events), timeout=timeout_s, fetch_local=False)
        ready, _ = self._ray.wait(list(by_events), num_returns=len(by_events), timeout=0, fetch_local=False)
        return [event for events in ready for event in self._receive(by_events[events])]

    def pause(self) -> AbstractContextManager[None]:
        """Does nothing; a study file that needs workers to pause is rejected with ``executor: ray``."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Ends all workers and leaves the cluster."""
        for slot in self._slots:
            self._ray.kill(slot.actor)
        self._slots = []
        self._ray.shutdown()

    def _give(self, slot: _Slot, job: Job) -> None:
        place = job.materials
        if place.key not in self._packed:
            if place.teacher is not None:  # these include the images of materials without a teacher
                for key in self._without_teacher & self._packed.keys():
                    del self._packed[key]
            while len(self._packed) >= MOST_KEPT:
                self._packed.popitem(last=False)
            if place.teacher is None:
                self._without_teacher.add(place.key)
            self._packed[place.key] = self._ray.put(place.open().packed())
        self._packed.move_to_end(place.key)
        slot.job, slot.begun, slot.stop_by = job, False, None
        slot.events = slot.actor.work.options(num_returns="streaming").remote(job, self._packed[place.key])

    def _receive(self, slot: _Slot) -> list[Event]:
        assert slot.job is not None
        job_id, silent = slot.job.id, slot.stop_by is not None
        try:
            event: Event = self._ray.get(next(slot.events))
        except StopIteration:
            slot.job = None
            return []
        except self._ray.exceptions.RayError as error:
            self._ray.kill(slot.actor)
            self._slots.remove(slot)
            return [] if silent else [WorkerLost(job=job_id, reason=f"its Ray worker was lost: {first_line(error)}")]
        slot.begun = True
        if isinstance(event, ENDS):
            slot.job = None
        if isinstance(event, JobFailed) and event.traceback:  # as for a worker process
            self._ray.kill(slot.actor)
            self._slots.remove(slot)
        return [] if silent else [event]

    def _move_unplaced(self) -> None:
        """Gives jobs of workers that no longer fit, because a node was lost, to free workers."""
        if len(self._slots) <= self._capacity():
            return
        free = [slot for slot in self._slots if slot.job is None]
        unplaced = [slot for slot in self._slots if slot.job is not None and not slot.begun]
        for slot, other in zip(unplaced, free, strict=False):
            assert slot.job is not None
            self._ray.kill(slot.actor)
            self._slots.remove(slot)
            self._give(other, slot.job)

    def _end_hanging(self) -> None:
        for slot in list(self._slots):
            if slot.job is not None and slot.stop_by is not None and time.monotonic() > slot.stop_by:
                logger.warning("a Ray worker did not stop job %s in time and is killed", slot.job.id)
                self._ray.kill(slot.actor)
                self._slots.remove(slot)
                discard(slot.job.checkpoint)

    def _carrying(self, job_id: str) -> list[_Slot]:
        return [slot for slot in self._slots if slot.job is not None and slot.job.id == job_id]

    def _capacity(self) -> int:
        needs = {"CPU": self._config.cpus_per_trial, "GPU": self._config.gpus_per_trial}
        fits = sum(
            min(int(node["Resources"].get(name, 0.0) / need + 1e-9) for name, need in needs.items() if need)
            for node in self._ray.nodes()
            if node["Alive"]
        )
        return min(fits, self._most) if self._most is not None else fits


def require_ray(search: SearchConfig) -> None:
    """Raises SearchError if the study uses Ray and Ray is not installed."""
    if search.executor == "ray" and importlib.util.find_spec("ray") is None:
        raise SearchError("search.executor: ray is not installed; pip install kdsearch[ray]")


def connect(config: RayConfig) -> Any:
    """Connects the ray library to the cluster and returns it; raises SearchError if the cluster does not answer."""
    import ray

    address = None if config.address == "local" else config.address
    try:
        if address not in {None, "auto"}:  # Ray itself would retry for minutes
            host, _, port = str(address).rpartition(":")
            socket.create_connection((host, int(port)), timeout=ANSWERS_WITHIN_S).close()
        passed = {"env_vars": {name: os.environ[name] for name, _ in SETTINGS if name in os.environ}}
        # some machines cannot reach themselves at their own address
        place: dict[str, Any] = {} if address else {"_node_ip_address": "127.0.0.1"}
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=passed if address else None,
            **place,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise SearchError(
            f"search.ray.address: no Ray cluster answers at {config.address}: {first_line(error)}; "
            "start one with ray start --head, or write local"
        ) from error
    return ray
