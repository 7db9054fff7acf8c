"""Writes a study's images and its trained teacher as any script could read them.

    python tests/benchmarks/peers/prepare.py studies/pareto.yaml FOLDER

``FOLDER/{train,validation,test}/{images,masks}/*.png`` and ``FOLDER/teacher.pt``, a TorchScript that gives logits and
the encoder's last maps. The study was run, at least until its teacher was trained.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from kdsearch.campaign.preparation import open_materials
from kdsearch.config.load import load_study, with_folders
from kdsearch.files.home import home_folder
from kdsearch.search.store import open_store


class Both(nn.Module):
    """Logits and the encoder's output."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and maps of normalized images."""
        outputs = self.teacher.outputs(image)
        return outputs.logits, outputs.features[-1]


def main() -> None:
    """Writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", action="append", default=[])
    options = parser.parse_args()
    study, home = with_folders(load_study(options.study), options.data), home_folder(os.environ)
    store = open_store(study, home, create=False)
    materials = open_materials(study, home, data=store.data(), teacher_id=store.teacher_id)
    for part in ("train", "validation", "test"):
        for kind in ("images", "masks"):
            (options.folder / part / kind).mkdir(parents=True, exist_ok=True)
        for position in getattr(materials.splits, part):
            name = f"{position:05d}.png"
            Image.fromarray(materials.dataset.images[position, 0]).save(options.folder / part / "images" / name)
            Image.fromarray(materials.dataset.masks[position]).save(options.folder / part / "masks" / name)
    teacher = Both(materials.teacher.load(torch.device("cpu"))).eval()
    side = study.data.size
    torch.jit.trace(teacher, torch.zeros(16, 1, side, side)).save(str(options.folder / "teacher.pt"))


if __name__ == "__main__":
    main()
