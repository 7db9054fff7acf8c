"""The full state of a training run, and checkpoints from which it resumes."""

from __future__ import annotations

import io
import logging
import math
import time
import zlib

import torch
from torch import Tensor, nn

from kdsearch.config.training import TrainingSpec
from kdsearch.distill.optimization import Slow, averaged, build_optimizer, build_schedule
from kdsearch.distill.result import CheckpointAway
from kdsearch.files.atomic import atomic_write, read_whole
from kdsearch.files.digests import digest
from kdsearch.trials.record import EpochReport, dump_curve, read_curve

SEAL_BYTES = 4 + 16
"""Length of the header: a checksum and the digest of what is trained."""

FIRST_PAUSE_S = 0.5
WAITS_S = 45.0
"""Shorter than the silence after which a worker counts as lost."""

logger = logging.getLogger(__name__)


class TrainingState:
    """Weights, optimizer, schedule, scaler, random state, best epoch so far and learning curve."""

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
        """``extra`` holds parameters that are trained jointly; ``steps`` counts the steps of all epochs."""
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
        """The network that is validated and kept: the model or its moving average."""
        return self.model if self.average is None else self.average.module

    def dump(self) -> bytes:
        """Serializes the state; call it between two epochs."""
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
        """Restores a state that ``dump`` returned."""
        kept = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # parts move to their own device
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
    """The weights of the best epoch so far, by validation Dice or loss."""

    def __init__(self, spec: TrainingSpec) -> None:
        self.epoch = 0
        self._monitor = spec.monitor
        self._value = -math.inf
        self._weights: dict[str, Tensor] = {}

    def offer(self, model: nn.Module, report: EpochReport) -> None:
        """Copies the model's weights if this epoch is the best so far."""
        value = report.dice if self._monitor == "dice" else -report.validation_loss
        if value > self._value:
            self.epoch, self._value = report.epoch, value
            self._weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        """Loads the best weights into the model."""
        model.load_state_dict(self._weights)

    def state(self) -> dict[str, object]:
        """The content for a checkpoint."""
        return {"epoch": self.epoch, "value": self._value, "weights": self._weights}

    def restore_state(self, state: dict[str, object]) -> None:
        """Restores what ``state`` returned."""
        self.epoch, self._value, self._weights = state["epoch"], state["value"], state["weights"]  # type: ignore[assignment]  # as state() returns


class Checkpoint:
    """The checkpoint of one training run.

    ``failure`` is the reason why the last write failed, or empty; ``resumed_epochs`` counts the epochs that were not
    trained again.
    """

    def __init__(self, url: str, *, subject: object, every_s: float, waits_s: float = WAITS_S) -> None:
        """``subject`` identifies what is trained; a checkpoint with another subject is ignored.

        The state is written at most every ``every_s`` seconds. Failed reads are retried for ``waits_s`` seconds.
        """
        self.failure = ""
        self.resumed_epochs = 0
        self._url = url
        self._subject = digest(subject).encode()
        self._every_s, self._waits_s = every_s, waits_s
        self._kept_at = time.monotonic()

    def resume(self, state: TrainingState) -> None:
        """Restores the state that an earlier process wrote; logs and ignores a damaged checkpoint.

        Raises CheckpointAway if the checkpoint cannot be read, because training from scratch would overwrite it.
        """
        content = self._read()
        if content is None or content[4:SEAL_BYTES] != self._subject:
            return
        body = content[SEAL_BYTES:]
        if zlib.crc32(body).to_bytes(4) != content[:4]:
            logger.warning("checkpoint %s is damaged; training starts from scratch", self._url)
            return
        state.restore(body)
        self.resumed_epochs = len(state.curve)

    def _read(self) -> bytes | None:
        until, pause = time.monotonic() + self._waits_s, FIRST_PAUSE_S
        while True:
            try:
                return read_whole(self._url)
            except NotADirectoryError:  # a file has the name of its folder, so no checkpoint was ever written
                return None
            except OSError as error:
                if time.monotonic() + pause > until:
                    raise CheckpointAway(f"cannot read its checkpoint: {error.strerror or error}") from error
                logger.warning("cannot read checkpoint %s; retrying: %s", self._url, error)
            time.sleep(pause)
            pause *= 2

    def keep(self, state: TrainingState) -> None:
        """Writes the state if the last write was at least ``every_s`` ago; sets ``failure`` if the write fails."""
        if time.monotonic() - self._kept_at < self._every_s:
            return
        body = state.dump()
        try:
            atomic_write(self._url, zlib.crc32(body).to_bytes(4) + self._subject + body)
            self.failure = ""
        except OSError as error:
            self.failure = f"no checkpoint: {error.strerror or error}"
        self._kept_at = time.monotonic()
