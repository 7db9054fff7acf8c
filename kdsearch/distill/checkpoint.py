"""All that a training changes as it goes, as one thing that is kept while it runs and resumed."""

from __future__ import annotations

import io
import logging
import math
import time
import zlib

import torch
from torch import Tensor, nn

from kdsearch.config.training import TrainingSpec
from kdsearch.distill.optimisation import Slow, averaged, build_optimizer, build_schedule
from kdsearch.distill.result import CheckpointAway
from kdsearch.files.digests import digest
from kdsearch.files.whole import read_whole, write_whole
from kdsearch.trials.record import EpochReport, dump_curve, read_curve

SEAL_BYTES = 4 + 16
"""A checksum and the digest of what is trained, before the state itself."""

FIRST_PAUSE_S = 0.5
WAITS_S = 45.0
"""Shorter than the silence for which a worker is taken for lost."""

logger = logging.getLogger(__name__)


class TrainingState:
    """Weights, optimiser, schedule, scaler, random state, the best epoch so far, and the curve."""

    def __init__(
        self,
        model: nn.Module,
        extra: nn.Module | None,
        spec: TrainingSpec,
        *,
        seed: int,
        steps: int,
        precision: torch.dtype | None,
        slow: Slow | None = None,
    ) -> None:
        """``extra`` holds parameters that learn along; ``steps`` are those of all epochs together."""
        self.model = model
        self.parameters = [*model.parameters(), *(extra.parameters() if extra is not None else ())]
        self.generator = torch.Generator(device="cpu").manual_seed(seed)
        self.optimizer = build_optimizer(self.parameters, spec, slow)
        self.schedule = build_schedule(self.optimizer, spec, steps=steps)
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=precision == torch.float16)
        self.average = averaged(model, spec, steps_per_epoch=steps / spec.epochs)
        self.best = Best(spec)
        self.curve: list[EpochReport] = []
        self._extra = extra

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the model, or its average."""
        return self.model if self.average is None else self.average.module

    def dump(self) -> bytes:
        """The state as it is between two epochs."""
        content = {
            "model": self.model.state_dict(),
            "extra": self._extra.state_dict() if self._extra is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": self.generator.get_state(),
            "best": self.best.state(),
            "curve": dump_curve(self.curve),
        }
        if self.average is not None:
            content["average"] = self.average.state_dict()
        file = io.BytesIO()
        torch.save(content, file)
        return file.getvalue()

    def restore(self, content: bytes) -> None:
        """Goes back to a dumped state."""
        kept = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # each part goes where it belongs
        self.model.load_state_dict(kept["model"])
        if self._extra is not None:
            self._extra.load_state_dict(kept["extra"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.schedule.load_state_dict(kept["schedule"])
        self.scaler.load_state_dict(kept["scaler"])
        self.generator.set_state(kept["random"])
        self.best.restore_state(kept["best"])
        if self.average is not None:
            self.average.load_state_dict(kept["average"])
        self.curve = list(read_curve(kept["curve"]))


class Best:
    """Keeps the weights of the best epoch so far, by validation Dice or loss."""

    def __init__(self, spec: TrainingSpec) -> None:
        self.epoch = 0
        self._monitor = spec.monitor
        self._value = -math.inf
        self._weights: dict[str, Tensor] = {}

    def offer(self, model: nn.Module, report: EpochReport) -> None:
        """Takes the model's weights if the report is better than all before."""
        value = report.dice if self._monitor == "dice" else -report.validation_loss
        if value > self._value:
            self.epoch, self._value = report.epoch, value
            self._weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        """Puts the best weights back."""
        model.load_state_dict(self._weights)

    def state(self) -> dict[str, object]:
        """What ``restore_state`` takes."""
        return {"epoch": self.epoch, "value": self._value, "weights": self._weights}

    def restore_state(self, state: dict[str, object]) -> None:
        """Goes back to what ``state`` gave."""
        self.epoch, self._value, self._weights = state["epoch"], state["value"], state["weights"]  # type: ignore[assignment]  # as written above


class Checkpoint:
    """One training's place for its state.

    ``failure`` says why the last state could not be kept, if so; ``resumed_epochs`` counts the epochs that the training
    resumed with.
    """

    def __init__(self, url: str, *, subject: object, every_s: float, waits_s: float = WAITS_S) -> None:
        """``subject`` is what is trained: a state of anything else is not resumed. ``every_s`` in seconds.

        A state that cannot be read is tried again for ``waits_s`` seconds.
        """
        self.failure = ""
        self.resumed_epochs = 0
        self._url = url
        self._subject = digest(subject).encode()
        self._every_s, self._waits_s = every_s, waits_s
        self._kept_at = time.monotonic()

    def resume(self, state: TrainingState) -> None:
        """Brings the state to where a former process left it; a damaged checkpoint is logged and left aside.

        Raises CheckpointAway for one that cannot be read: a training from the first epoch would overwrite it.
        """
        content = self._read()
        if content is None or content[4:SEAL_BYTES] != self._subject:
            return
        body = content[SEAL_BYTES:]
        if zlib.crc32(body).to_bytes(4) != content[:4]:
            logger.warning("%s is damaged; the training begins again", self._url)
            return
        state.restore(body)
        self.resumed_epochs = len(state.curve)

    def _read(self) -> bytes | None:
        until, pause = time.monotonic() + self._waits_s, FIRST_PAUSE_S
        while True:
            try:
                return read_whole(self._url)
            except NotADirectoryError:  # a file is in the place of its folder, so that it was never written
                return None
            except OSError as error:
                if time.monotonic() + pause > until:
                    raise CheckpointAway(f"its checkpoint cannot be read: {error.strerror or error}") from error
                logger.warning("%s cannot be read, and is tried again: %s", self._url, error)
            time.sleep(pause)
            pause *= 2

    def keep(self, state: TrainingState) -> None:
        """Writes the state if the last one was written long enough ago; a failure is left in ``failure``."""
        if time.monotonic() - self._kept_at < self._every_s:
            return
        body = state.dump()
        try:
            write_whole(self._url, zlib.crc32(body).to_bytes(4) + self._subject + body)
            self.failure = ""
        except OSError as error:
            self.failure = f"no checkpoint: {error.strerror or error}"
        self._kept_at = time.monotonic()
