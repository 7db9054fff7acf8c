"""How a careful script trains one student: Dataset, DataLoader, torchvision's transforms, the teacher run at each step.

Losses come from torchdistill if it has them. Networks are kdsearch's, so that equal settings give equal students.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kdsearch.config.networks import UNetSpec
from kdsearch.config.task import square
from kdsearch.models.costs import cost_of
from kdsearch.models.encoders import declare_missing_operators
from kdsearch.models.students import build_student

declare_missing_operators()

from segmentation_models_pytorch.losses import DiceLoss  # noqa: E402 - it imports torchvision
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchdistill.losses.mid_level import ATLoss, KDLoss, SimpleLossWrapper  # noqa: E402 - likewise
from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

SIZE, EPOCHS, BATCH = 64, 15, 16
MOST_PARAMS, MOST_MACS = 1_000_000, 120_000_000
MEAN, STD = 0.449, 0.226
PATHS = ("none", "logits", "attention", "regressor")
Report = Callable[[int, float], None]
"""Told an epoch and the best Dice so far."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is searched, as in ``studies/pareto.yaml``."""

    width: int
    growth: float
    depth: int
    convs_per_stage: int
    conv: str
    path: str
    loss: str
    weight: float
    temperature: float
    learning_rate: float

    @property
    def spec(self) -> UNetSpec:
        """The student."""
        names = ("width", "growth", "depth", "convs_per_stage", "conv")
        return UNetSpec.model_validate({name: getattr(self, name) for name in names})

    def fits(self) -> bool:
        """Whether the student is within the limits; a careful script looks before it trains."""
        cost = cost_of(self.spec, square(SIZE))
        return cost.params <= MOST_PARAMS and cost.macs <= MOST_MACS


class Lesions(Dataset):
    """Images and masks of one part, read once, transformed when they are asked for."""

    def __init__(self, folder: Path, *, augmented: bool) -> None:
        """``folder`` holds images and masks of the same names."""
        names = sorted(path.name for path in (folder / "images").iterdir())
        self.images, self.masks = ([_read(folder / kind / name) for name in names] for kind in ("images", "masks"))
        moved = [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(degrees=15, translate=(0.1, 0.1), scale=(0.85, 1.15)),
            v2.RandomResizedCrop(SIZE, scale=(0.72, 1.0), ratio=(1.0, 1.0), antialias=True),
        ]
        noisy = [v2.GaussianNoise(sigma=0.05)] if augmented else []
        self.transform = v2.Compose(
            [
                *(moved if augmented else []),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                *noisy,
                v2.Normalize([MEAN], [STD]),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.transform(tv_tensors.Image(self.images[index]), tv_tensors.Mask(self.masks[index]))
        return image, (mask > 0).float()


class Script:
    """Trains students and writes a line a student to ``results.jsonl``."""

    def __init__(self, data: Path, out: Path, *, seed: int, began: float) -> None:
        """``began`` is when the search did, in seconds of the epoch."""
        torch.set_num_threads(1)
        self.out, self.seed, self.began = out, seed, began
        out.mkdir(parents=True, exist_ok=True)
        self.train = Lesions(data / "train", augmented=True)
        self.validation = Lesions(data / "validation", augmented=False)
        self.teacher = torch.jit.load(str(data / "teacher.pt")).eval()

    def make(self, settings: Settings, *, number: int, report: Report = lambda *_: None) -> float:
        """The best validation Dice of the student, whose best weights are kept; ``report`` is told each epoch."""
        torch.manual_seed(self.seed)
        student = build_student(settings.spec, seed=self.seed)
        learner = _Learner(student, self.teacher, settings)
        optimizer = torch.optim.AdamW(learner.parameters(), lr=settings.learning_rate, weight_decay=1e-4, fused=True)
        loader = DataLoader(self.train, batch_size=BATCH, shuffle=True, drop_last=True)  # one core: no loader processes
        steps = EPOCHS * len(loader)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps, pct_start=0.2)
        best, weights = 0.0, {}
        for epoch in range(1, EPOCHS + 1):
            student.train()
            for image, mask in loader:
                optimizer.zero_grad(set_to_none=True)
                learner.loss(image.contiguous(memory_format=torch.channels_last), mask).backward()
                optimizer.step()
                schedule.step()
            found = self.dice(student)
            if found > best:
                best, weights = found, {name: tensor.clone() for name, tensor in student.state_dict().items()}
            if epoch == EPOCHS:  # before the report, after which a scheduler may end the process
                torch.save(weights, self.out / f"weights-{number}.pt")
                self._note(settings, number=number, dice=best)
            report(epoch, best)
        return best

    @torch.no_grad()
    def dice(self, student: nn.Module) -> float:
        """Mean over validation images with a lesion."""
        student.eval()
        found = []
        for image, mask in DataLoader(self.validation, batch_size=64):
            found.append(dice_of(student(image) > 0, mask > 0))
        return float(torch.cat(found).nanmean())

    def _note(self, settings: Settings, *, number: int, dice: float) -> None:
        line = {
            "number": number,
            "ended_s": time.time() - self.began,
            "params": cost_of(settings.spec, square(SIZE)).params,
            "dice": dice,
            "settings": asdict(settings),
        }
        with (self.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class _Learner(nn.Module):
    """A student and what it learns by."""

    def __init__(self, student: nn.Module, teacher: nn.Module, settings: Settings) -> None:
        super().__init__()
        self.student, self._teacher, self._settings = student, [teacher], settings
        self.dice, self.entropy = DiceLoss("binary"), nn.BCEWithLogitsLoss()
        self.kd = KDLoss(
            "logits", "output", "logits", "output", temperature=settings.temperature, alpha=0, reduction="mean"
        )
        pair = {"teacher": {"io": "output", "path": "deep"}, "student": {"io": "output", "path": "deep"}}
        self.attention = ATLoss({"deep": pair}, mode="code")
        self.error = SimpleLossWrapper(
            nn.MSELoss(),
            input={"is_from_teacher": False, "module_path": "compared", "io": "output"},
            target={"is_from_teacher": True, "module_path": "compared", "io": "output"},
        )
        self.regressor = nn.Identity()
        if settings.path == "regressor":
            with torch.no_grad():
                channels = teacher(torch.zeros(1, 1, SIZE, SIZE))[1].shape[1]
            self.regressor = nn.Conv2d(settings.spec.channels[-1], channels, kernel_size=1)

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Against the masks, and against the teacher by the path."""
        outputs = self.student.outputs(image)
        supervised = self.dice(outputs.logits, mask) + self.entropy(outputs.logits, mask)
        if self._settings.path == "none":
            return supervised
        with torch.no_grad():
            logits, deep = self._teacher[0](image)
        return supervised + self._settings.weight * self._distilled(outputs, logits, deep, mask)

    def _distilled(self, outputs: object, logits: Tensor, deep: Tensor, mask: Tensor) -> Tensor:
        own, theirs = outputs.logits, logits
        if self._settings.path == "logits" and self._settings.loss == "kld":
            # a binary map's logits as those of two classes; by hand is what KDLoss leaves out without labels
            two = [torch.cat([torch.zeros_like(one), one], dim=1) for one in (own, theirs)]
            by_pixel = self.kd({"logits": {"output": two[0]}}, {"logits": {"output": two[1]}})
            return 2 * self._settings.temperature**2 * by_pixel
        if self._settings.path != "logits":
            own = self.regressor(outputs.features[-1])
            side = min(own.shape[-1], deep.shape[-1])
            own, theirs = (nn.functional.adaptive_avg_pool2d(maps, side) for maps in (own, deep))
        name = "deep" if self._settings.path == "attention" else "compared"
        judge = self.attention if self._settings.path == "attention" else self.error
        return judge({name: {"output": own}}, {name: {"output": theirs}}, mask)


def dice_of(predicted: Tensor, truth: Tensor) -> Tensor:
    """Of each image, NaN where there is no lesion."""
    both, a, b = (part.flatten(1).sum(dim=1).float() for part in (predicted & truth, predicted, truth))
    return torch.where(b > 0, 2 * both / (a + b).clamp_min(1), torch.nan)


def lines_of(out: Path) -> Iterator[dict[str, object]]:
    """The students of a script so far."""
    path = out / "results.jsonl"
    yield from map(json.loads, path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()


def _read(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path))).unsqueeze(0)
