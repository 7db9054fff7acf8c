"""Counts parameters and multiply-adds exactly, and by fvcore and ptflops for comparison."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import warnings

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdsearch.config.task import Task
from kdsearch.trials.scores import Cost, ToolCount

logger = logging.getLogger(__name__)


def count(model: nn.Module, task: Task) -> Cost:
    """Counts parameters and multiply-adds for one image; takes milliseconds on the meta device."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(task.input_shape, device=device))
    model.train(was_training)
    return Cost(params=sum(p.numel() for p in model.parameters()), macs=counter.get_total_flops() // 2)


def count_by_tools(model: nn.Module, task: Task, *, cost: Cost) -> tuple[ToolCount, ...]:
    """Returns the totals of fvcore and ptflops for one image, on the CPU; warns if they contradict the exact count."""
    shape = task.input_shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # both tools use deprecated parts of torch
        warnings.simplefilter("ignore", DeprecationWarning)
        fvcore = _fvcore(model, shape, cost)
        ptflops = _ptflops(model, shape)
    if not 0.98 * cost.macs <= ptflops <= 1.5 * cost.macs + 200 * task.pixels_at(1):
        logger.warning(
            "ptflops counts %d multiply-adds, kdsearch %d; batch norms and activations do not explain the difference",
            ptflops,
            cost.macs,
        )
    return (
        ToolCount(
            tool="fvcore",
            version=importlib.metadata.version("fvcore"),
            value=fvcore,
            unit="multiply-adds, batch norm included",
            input_shape=shape,
        ),
        ToolCount(
            tool="ptflops",
            version=importlib.metadata.version("ptflops"),
            value=ptflops,
            unit="multiply-adds, batch norm, activation, pooling and upsampling included",
            input_shape=shape,
        ),
    )


def _fvcore(model: nn.Module, shape: tuple[int, ...], cost: Cost) -> int:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model.eval(), torch.zeros(shape))
    analysis.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False)
    by_operator = analysis.by_operator()
    exact = round(sum(by_operator.get(name, 0) for name in ("conv", "linear", "matmul", "addmm", "bmm", "einsum")))
    # fvcore traces the network and leaves out layers whose output is unused, although they are computed.
    unused = [model.get_submodule(name) for name in analysis.uncalled_modules()]
    if exact != cost.macs and not any(isinstance(module, nn.Conv2d | nn.Linear) for module in unused):
        logger.warning(
            "fvcore counts %d multiply-adds in convolutions and matrix products, kdsearch %d", exact, cost.macs
        )
    return int(analysis.total())


def _ptflops(model: nn.Module, shape: tuple[int, ...]) -> int:
    from kdsearch.models.encoders import declare_missing_operators

    declare_missing_operators()
    from ptflops import get_model_complexity_info

    with contextlib.redirect_stdout(io.StringIO()):
        total, _ = get_model_complexity_info(
            model.eval(), shape[1:], print_per_layer_stat=False, as_strings=False, verbose=False
        )
    return round(float(total))
