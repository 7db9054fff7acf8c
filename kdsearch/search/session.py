"""What the driver holds while it searches."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.config.study import StudyConfig
from kdsearch.distill.materials import Materials
from kdsearch.files.home import checkpoint_folder
from kdsearch.search.lease import Lease
from kdsearch.search.pruners.learning_curve import Pruner
from kdsearch.search.store import Proposal, StudyStore
from kdsearch.search.study_state import StudyState
from kdsearch.search.watchdog import Watchdog
from kdsearch.trials.record import job_of_trial
from kdsearch.workers.jobs import Executor

if TYPE_CHECKING:
    from kdsearch.tracking.recorder import Recorder


@dataclass(slots=True, kw_only=True)
class Session:
    """One driver's parts; only ``waiting`` changes hands."""

    study: StudyConfig
    home: Path
    store: StudyStore
    lease: Lease
    state: StudyState
    executor: Executor
    recorder: Recorder
    materials: Materials
    pruner: Pruner
    watchdog: Watchdog
    waiting: deque[Proposal] = field(default_factory=deque)
    """Trials that have a recipe and no worker."""
    exhausted: bool = False
    """Whether a grid has no more recipes."""

    def checkpoint_of(self, number: int) -> str:
        """Where a trial's state lies while it runs."""
        place = checkpoint_folder(self.home, self.study.name, self.study.search.checkpoints, study_id=self.store.id)
        return f"{place}/{job_of_trial(number)}.checkpoint"
