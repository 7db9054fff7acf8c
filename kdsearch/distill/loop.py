"""The one training loop, for teacher, student and plain student."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdsearch.config.training import TrainingSpec
from kdsearch.distill import losses
from kdsearch.distill.arrays import Images, TrainingData
from kdsearch.distill.objective import Objective
from kdsearch.distill.optimisation import build_optimizer, build_schedule
from kdsearch.distill.report import EpochReport, TrainingFailed
from kdsearch.distill.views import Batch, TeacherMaps, normalise, strong_view
from kdsearch.measure.overlap import dice_per_image, predict_classes

EVALUATION_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """How a training ended."""

    epochs: int
    best_epoch: int
    seconds: float


def train(
    model: nn.Module,
    objective: Objective,
    data: TrainingData,
    spec: TrainingSpec,
    *,
    seed: int,
    extra: nn.Module | None = None,
) -> Generator[EpochReport, None, Fitted]:
    """Trains the model in place, yielding one report an epoch, and leaves it with the best epoch's weights.

    Closing the generator stops the training. ``extra`` holds parameters that learn along, such as a regressor's.
    Raises TrainingFailed for a loss that is not finite.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    parameters = [*model.parameters(), *(extra.parameters() if extra is not None else ())]
    optimizer = build_optimizer(parameters, spec)
    steps = math.ceil(len(data.train) / spec.batch_size)
    schedule = build_schedule(optimizer, spec, steps=steps * spec.epochs)
    precision = _mixed_precision(spec, data.device)
    scaler = torch.amp.GradScaler(data.device.type, enabled=precision == torch.float16)
    best = Best(spec)
    started = time.monotonic()
    epoch = 0
    for epoch in range(1, spec.epochs + 1):
        model.train()
        total = torch.zeros((), device=data.device)
        for chosen in torch.randperm(len(data.train), generator=generator).tensor_split(steps):
            batch = draw_batch(data, chosen, spec, generator)
            with torch.autocast(data.device.type, precision, enabled=precision is not None):
                loss = objective(batch)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            if spec.gradient_clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(parameters, spec.gradient_clip)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            total += loss.detach() * len(chosen)
        train_loss = _finite(total / len(data.train), epoch)
        rate = float(schedule.get_last_lr()[0])
        seconds = time.monotonic() - started
        report = _judge(model, data.validation, spec, epoch=epoch, train_loss=train_loss, rate=rate, seconds=seconds)
        best.offer(model, report)
        yield report
        if spec.patience is not None and epoch - best.epoch >= spec.patience:
            break
    best.restore(model)
    return Fitted(epochs=epoch, best_epoch=best.epoch, seconds=time.monotonic() - started)


def draw_batch(data: TrainingData, chosen: Tensor, spec: TrainingSpec, generator: torch.Generator) -> Batch:
    """The chosen training images in the strong view, with the teacher's maps where they are cached."""
    chosen = chosen.to(data.device)
    maps = None
    if data.maps is not None:
        maps = TeacherMaps(logits=data.maps.logits[chosen], hidden=data.maps.hidden[chosen])
    return strong_view(data.train.grey[chosen], data.train.masks[chosen], maps, spec.augmentation, generator)


@torch.no_grad()
def predict_logits(model: nn.Module, images: Images) -> Tensor:
    """Logits N×C×H×W of all images, in evaluation mode."""
    model.eval()
    parts = [model(normalise(part)) for part in torch.split(images.grey, EVALUATION_BATCH)]
    return torch.cat(parts).float()


@contextlib.contextmanager
def reporting_memory() -> Iterator[None]:
    """Turns running out of memory, on a GPU or on the CPU, into TrainingFailed."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingFailed(f"the device ran out of memory: {str(error).splitlines()[0]}") from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise TrainingFailed(f"this machine ran out of memory: {str(error).splitlines()[0]}") from error


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


def _judge(
    model: nn.Module, images: Images, spec: TrainingSpec, *, epoch: int, train_loss: float, rate: float, seconds: float
) -> EpochReport:
    logits = predict_logits(model, images)
    target = (images.masks > 0).long()
    loss = _finite(losses.supervised(logits, target, spec.supervised_loss), epoch)
    return EpochReport(
        epoch=epoch,
        epochs=spec.epochs,
        train_loss=train_loss,
        validation_loss=loss,
        dice=float(dice_per_image(predict_classes(logits).cpu(), target.cpu()).nanmean()),
        learning_rate=rate,
        seconds=seconds,
    )


def _finite(loss: Tensor, epoch: int) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise TrainingFailed(f"the loss became {value} in epoch {epoch}")
    return value


def _mixed_precision(spec: TrainingSpec, device: torch.device) -> torch.dtype | None:
    """The arithmetic autocast is to use; None for plain float32, which is what any device but CUDA gets."""
    if device.type != "cuda" or spec.precision == "float32":
        return None
    return torch.float16 if spec.precision == "fp16" else torch.bfloat16
