"""Students, teachers and sizes in words that need no legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdsearch.config.distillation import DistillationSpec, Loss, Term
from kdsearch.config.networks import AnyTeacher, Architecture, StudentSpec, TeacherConfig, UNetSpec
from kdsearch.config.quantity import format_quantity
from kdsearch.trials.record import Student
from kdsearch.trials.scores import Scores

SIZES = (10_000, 50_000, 100_000, 500_000, 1_000_000)
"""Size classes: at most so many parameters."""
LOSSES: dict[Loss, str] = {
    "mse": "MSE",
    "kld": "KL",
    "dml": "DML",
    "cwd": "CWD",
    "pkd": "PKD",
    "affinity": "affinity",
    "region": "region",
}
ARCHITECTURES: dict[Architecture, str] = {
    "unet": "U-Net",
    "unetplusplus": "U-Net++",
    "manet": "MA-Net",
    "linknet": "LinkNet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
    "pan": "PAN",
    "upernet": "UPerNet",
    "segformer": "SegFormer",
    "dpt": "DPT",
}


def student_words(spec: StudentSpec) -> str:
    """``5 stages from 8 channels, ×1.3``: a U-Net by its channels; a timm encoder by its stages and decoder."""
    if isinstance(spec, UNetSpec):
        return f"{len(spec.channels)} stages from {spec.width} channels, ×{spec.growth:.3g}"
    return f"{spec.encoder}, {spec.depth} stages, {spec.width}-channel decoder"


def layers_words(spec: StudentSpec) -> str:
    """``2 separable convolutions per stage``."""
    count = f"{spec.convs_per_stage} {spec.conv} convolution{'s' * (spec.convs_per_stage > 1)}"
    return f"{count} per stage" if isinstance(spec, UNetSpec) else f"{count} per decoder stage"


def distillation_words(spec: DistillationSpec | None) -> str:
    """``logits (KL) + attention at strides 4, 8 (MSE)``, or ``no teacher``."""
    if spec is None:
        return "no teacher"
    strides: dict[tuple[str, str], list[str]] = {}
    for term in spec.terms:
        strides.setdefault((term.path, LOSSES.get(term.loss, term.loss)), []).extend(_stride(term))
    return " + ".join(f"{on}{_at(found)} ({loss})" for (on, loss), found in strides.items())


def path_words(path: str) -> str:
    """The distillation path of a recipe, or ``no teacher``."""
    return "no teacher" if path == "none" else path


def _stride(term: Term) -> list[str]:
    stride = getattr(term, "stride", None)
    return [] if stride is None else [str(stride)]


def _at(strides: Sequence[str]) -> str:
    return f" at stride{'s' * (len(strides) > 1)} {', '.join(strides)}" if strides else ""


def inheritance_words(student: Student) -> str:
    """``, from trial 12 after 50 epochs`` if the student started with another one's weights, else empty."""
    start = student.recipe.start
    return "" if start is None else f", from trial {start.donor} after {student.donor_epochs} epochs"


def teacher_words(teacher: AnyTeacher) -> str:
    """``U-Net with tf_efficientnet_lite0 (pretrained)``."""
    if not isinstance(teacher, TeacherConfig):
        return teacher.title
    several = f"{teacher.ensemble} × " if teacher.ensemble > 1 else ""
    weights = teacher.checkpoint or ("from scratch" if teacher.weights == "none" else "pretrained")
    return f"{several}{ARCHITECTURES[teacher.architecture]} with {teacher.encoder} ({weights})"


def size_name(place: int) -> str:
    """``up to 50k``, or ``over 1M`` after the last of ``SIZES``."""
    return f"up to {format_quantity(SIZES[place])}" if place < len(SIZES) else f"over {format_quantity(SIZES[-1])}"


def size_class(scores: Scores) -> int:
    """The place in ``SIZES`` of the smallest class that the network fits in; ``len(SIZES)`` if it fits in none."""
    return next((place for place, most in enumerate(SIZES) if scores.params <= most), len(SIZES))


def best_by_size(students: Iterable[Student]) -> list[tuple[str, Student]]:
    """The best student up to each size, smallest first; a larger size is left out unless its best has a higher Dice."""
    found: dict[int, Student] = {}
    best = None
    for student in sorted(students, key=lambda one: (size_class(one.scores), -one.scores.dice, one.scores.params)):
        if best is None or student.scores.dice > best.scores.dice:
            best = student
            found.setdefault(size_class(student.scores), student)
    return [(size_name(place), student) for place, student in found.items()]
