"""The training loop for teachers and for students with or without a teacher, and their scores."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdsearch.config.training import TrainingSpec
from kdsearch.distill import losses
from kdsearch.distill.batches import Batch, Images, TrainingData, strong_view
from kdsearch.distill.checkpoint import Checkpoint, TrainingState
from kdsearch.distill.objective import Objective
from kdsearch.distill.optimization import Gradients, Slow
from kdsearch.distill.result import Kept, OutOfMemory, TrainingFailed
from kdsearch.errors import first_line
from kdsearch.files.digests import seed_of
from kdsearch.measure.counts import count, count_by_tools
from kdsearch.measure.scores import assemble, mean_dice, predict_classes
from kdsearch.models.contract import normalize
from kdsearch.trials.record import EpochReport
from kdsearch.trials.scores import Cost, Scores

EVALUATION_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """How a training ended."""

    epochs: int
    best_epoch: int
    seconds: float


def train(  # noqa: PLR0913 - one argument for each part of a training run
    model: nn.Module,
    objective: Objective,
    data: TrainingData,
    spec: TrainingSpec,
    *,
    seed: int,
    extra: nn.Module | None = None,
    slow: Slow | None = None,
    checkpoint: Checkpoint | None = None,
    kept: Kept = "best",
) -> Generator[EpochReport, None, Fitted]:
    """Trains the model in place, yields one report per epoch, and leaves the model with the kept epoch's weights.

    If the last weights are kept, validation images are not used and their values in the reports are NaN. Closing the
    generator stops the training. ``extra`` holds parameters that are trained jointly, such as a regressor's; ``slow``
    is a part of the model with a lower learning rate. With a checkpoint, the finished epochs are reported again at
    once and training continues; on a CPU the final weights are bit-identical to those of an uninterrupted run. Raises
    TrainingFailed if the loss is not finite.
    """
    steps = math.ceil(len(data.train) / spec.batch_size)
    precision = _mixed_precision(spec, data.device)
    state = TrainingState(model, extra, spec, seed=seed, steps=steps * spec.epochs, precision=precision, slow=slow)
    if checkpoint is not None:
        checkpoint.resume(state)
    yield from list(state.curve)
    gradients = Gradients(objective, state.parameters, state.scaler, device=data.device, precision=precision)
    started = time.monotonic() - (state.curve[-1].seconds if state.curve else 0.0)
    while not _is_done(state, spec):
        others = torch.Generator().manual_seed(seed_of("unlabelled", seed, epoch := len(state.curve) + 1))
        train_loss = _finite(_train_epoch(state, gradients, data, spec, steps=steps, others=others), epoch)
        report = EpochReport(
            epoch=epoch,
            epochs=spec.epochs,
            train_loss=train_loss,
            validation_loss=math.nan,
            dice=math.nan,
            learning_rate=float(state.schedule.get_last_lr()[0]),
            seconds=time.monotonic() - started,
        )
        if kept == "best":
            report = _judged(report, state.judged, data.validation, spec)
            state.best.offer(state.judged, report)
        state.curve.append(report)
        if checkpoint is not None:
            checkpoint.keep(state)
        yield report
    _take_weights(state, kept)
    done, best = len(state.curve), state.best.epoch
    return Fitted(epochs=done, best_epoch=best or done, seconds=time.monotonic() - started)


def _take_weights(state: TrainingState, kept: Kept) -> None:
    if kept == "best":
        state.best.restore(state.model)
    elif state.average is not None:
        state.model.load_state_dict(state.judged.state_dict())


def _train_epoch(
    state: TrainingState,
    gradients: Gradients,
    data: TrainingData,
    spec: TrainingSpec,
    *,
    steps: int,
    others: torch.Generator,
) -> Tensor:
    """Trains on every image with a mask once and returns the mean loss.

    ``others`` draws and augments the unlabelled images, so that a student sees the same views of the other images in
    the same batches with and without them.
    """
    state.model.train()
    total = torch.zeros((), device=data.device)
    seen = 0
    labelled = torch.randperm(len(data.train), generator=state.generator).tensor_split(steps)
    for chosen, unlabelled in zip(labelled, _unlabelled_parts(data, labelled, others), strict=True):
        batch = draw_batch(data, chosen, spec, state.generator)
        if unlabelled is not None:
            batch = with_unlabelled(batch, data, unlabelled, spec, others)
        total += gradients(batch) * len(chosen)
        if spec.gradient_clip is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.parameters, spec.gradient_clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.schedule.step()
        if state.average is not None:
            state.average.update_parameters(state.model)
        seen += len(chosen)
    return total / seen


def _unlabelled_parts(
    data: TrainingData, labelled: Sequence[Tensor], generator: torch.Generator
) -> Iterator[Tensor | None]:
    """Yields for each step the positions of the unlabelled images to add, or None if there are none.

    They make up the requested fraction of the combined batch.
    """
    more = data.unlabelled
    if more is None:
        yield from (None for _ in labelled)
        return
    each = more.fraction / (1 - more.fraction)
    counts = [max(1, round(len(chosen) * each)) for chosen in labelled]
    rounds = math.ceil(sum(counts) / len(more.pixels))
    order = torch.cat([torch.randperm(len(more.pixels), generator=generator) for _ in range(rounds)])
    yield from torch.split(order[: sum(counts)], counts)


def draw_batch(data: TrainingData, chosen: Tensor, spec: TrainingSpec, generator: torch.Generator) -> Batch:
    """Augments the chosen training images, and the teacher's logits if the data has them."""
    chosen = chosen.to(data.device)
    logits = None if data.teacher_logits is None else data.teacher_logits[chosen]
    batch = strong_view(
        data.train.pixels[chosen],
        data.train.masks[chosen],
        logits,
        spec=spec.augmentation,
        generator=generator,
        binary=data.train.is_binary,
    )
    return batch if data.left_out is None else dataclasses.replace(batch, left_out=data.left_out[chosen])


def with_unlabelled(
    batch: Batch, data: TrainingData, chosen: Tensor, spec: TrainingSpec, generator: torch.Generator
) -> Batch:
    """Appends the chosen unlabelled images to the batch, with their own random augmentation."""
    assert data.unlabelled is not None, "the data has unlabelled images to choose from"
    chosen = chosen.to(data.device)
    pixels, logits = data.unlabelled.pixels[chosen], None
    padding = data.unlabelled.padding
    masks = torch.zeros_like(pixels[:, 0]) if padding is None else padding[chosen]
    if batch.teacher_logits is not None:
        assert data.unlabelled.teacher_logits is not None, "both parts have teacher logits"
        logits = data.unlabelled.teacher_logits[chosen]
    binary = data.train.is_binary and padding is None
    more = strong_view(pixels, masks, logits, spec=spec.augmentation, generator=generator, binary=binary)
    return batch.followed_by(more)


@torch.no_grad()
def predict_logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Predicts logits N×K×H×W for images N×C×H×W of values 0-255, in evaluation mode."""
    model.eval()
    parts = [model(normalize(part)) for part in torch.split(pixels, EVALUATION_BATCH)]
    return torch.cat(parts).float()


@contextlib.contextmanager
def reporting_memory() -> Iterator[None]:
    """Raises OutOfMemory if the GPU or the CPU runs out of memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the device ran out of memory; set fewer search.workers to leave more for each: {first_line(error)}"
        ) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise OutOfMemory(f"this machine ran out of memory: {first_line(error)}") from error


def _is_done(state: TrainingState, spec: TrainingSpec) -> bool:
    epoch = len(state.curve)
    return epoch >= spec.epochs or (spec.patience is not None and epoch - state.best.epoch >= spec.patience)


def _judged(report: EpochReport, model: nn.Module, images: Images, spec: TrainingSpec) -> EpochReport:
    logits = predict_logits(model, images.pixels)
    target, counts = images.target()
    return dataclasses.replace(
        report,
        validation_loss=_finite(losses.supervised(logits, target, spec.supervised_loss, counts), report.epoch),
        dice=mean_dice(predict_classes(logits).cpu(), images.masks.cpu(), classes=len(images.classes)),
    )


def _finite(loss: Tensor, epoch: int) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise TrainingFailed(f"the loss became {value} in epoch {epoch}")
    return value


def _mixed_precision(spec: TrainingSpec, device: torch.device) -> torch.dtype | None:
    """The type for autocast; None means float32, which every device except CUDA uses."""
    if device.type != "cuda" or spec.precision == "float32":
        return None
    return torch.float16 if spec.precision == "fp16" else torch.bfloat16


def score(network: nn.Module, images: Images, fitted: Fitted, *, params: int | None = None) -> Scores:
    """Scores the network on the images and counts its cost; leaves it on the CPU, where counting tools need it.

    Pass ``params`` for a network that cannot be counted; its multiply-adds are then unknown.
    """
    predicted = predict_classes(predict_logits(network, images.pixels)).cpu()
    network.cpu()
    cost = count(network, images.task) if params is None else Cost(params=params, macs=0)
    return assemble(
        predicted=predicted,
        target=images.masks.cpu(),
        sources=images.sources,
        names=images.classes,
        cost=cost,
        tool_counts=count_by_tools(network, images.task, cost=cost) if params is None else (),
        train_seconds=fitted.seconds,
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
    )
