"""A picked student as a folder: its weights in every form, what it is, how good it is, and how it was made."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kdsearch.config.study import StudyConfig
from kdsearch.data.native import native_images
from kdsearch.data.neighbours import summarise
from kdsearch.distill.batches import Images
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.materials import Materials
from kdsearch.errors import KdsearchError, ModelError
from kdsearch.export.card import model_card
from kdsearch.export.checks import lesion_dice, mean_dice, native_scores, onnx_logits, require_same
from kdsearch.export.description import (
    DESCRIPTION,
    INT8,
    NO_NAME,
    ONNX,
    WEIGHTS,
    Description,
    Input,
    Int8Check,
    NativeScore,
    OnnxCheck,
    Subgroup,
    Timing,
    dump_description,
    read_description,
    require_unchanged,
)
from kdsearch.export.loading import torch_network
from kdsearch.export.onnx_graph import CALIBRATION_IMAGES, OPSET, mark, quantise, to_onnx, with_preprocessing
from kdsearch.export.seen import FILE as SEEN
from kdsearch.export.timing import thread_counts, time_folder, time_torch
from kdsearch.files.digests import digest_file
from kdsearch.files.whole import whole_folder
from kdsearch.measure.latency import Latency, processor_name
from kdsearch.models.contract import GREY_MEAN, GREY_STD, normalise
from kdsearch.models.students import StudentNetwork, build_student
from kdsearch.trials.record import Student
from kdsearch.trials.scores import ScoredOn
from kdsearch.version import __version__, installed_packages


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a shipped student comes from."""

    chosen: str
    """Why it was picked, and what is claimed of it."""
    seen: str
    """Content of ``seen.txt``: the images it learnt from or was chosen by, and the locked ones."""
    test_openings: int = 0
    """How often the study's locked images had been opened."""
    tested: bool = False
    """Whether they tested this student's recipe."""
    scored_on: ScoredOn = "validation"
    """Which images the validation images of its materials are: of a student that was tested, the locked ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a student is shipped."""

    preprocessing: bool
    """Whether grey, resize and scale go into the graph."""
    int8_bound: float
    """Most Dice the eight-bit model may lose before it is marked."""
    latency: bool = True
    """Whether its latency is measured on this machine."""


def ship_student(
    student: Student,
    study: StudyConfig,
    materials: Materials,
    *,
    weights: Path,
    overlays: bytes,
    form: Form,
    provenance: Provenance,
    folder: Path,
) -> Description:
    """Writes the student to a new folder, whole or not at all, and says what is in it.

    Raises KdsearchError where the folder exists or the weights are not there, ExportError where ONNX computes something
    else than torch.
    """
    if folder.exists():
        raise KdsearchError(f"{folder} exists already; remove it, or name another folder with --out")
    network = load_weights(student, weights)
    with whole_folder(folder) as beside:
        shutil.copyfile(weights, beside / WEIGHTS)
        checks = _write_models(network, materials, folder=beside, form=form, scored_on=provenance.scored_on)
        (beside / "overlays.png").write_bytes(overlays)
        (beside / "environment.txt").write_text(installed_packages(), encoding="utf-8")
        (beside / SEEN).write_text(provenance.seen, encoding="utf-8")
        latency = _latency(network, beside, size=study.data.size) if form.latency else []
        files = _digests(beside)
        description = _describe(
            student,
            study,
            materials,
            network=network,
            checks=checks,
            latency=latency,
            files=files,
            provenance=provenance,
        )
        (beside / DESCRIPTION).write_text(dump_description(description), encoding="utf-8")
        card = model_card(description, study, teacher=materials.teacher.scores)
        (beside / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    return description


def load_weights(student: Student, weights: Path) -> StudentNetwork:
    """The student's network with its weights, for evaluation; raises KdsearchError where they are not there."""
    if not weights.is_file():
        raise KdsearchError(
            f"the weights of trial {student.number} are not at {weights}; was KDSEARCH_HOME another folder then?"
        )
    network = build_student(student.recipe.student, begun=False)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise KdsearchError(f"{weights}: not the weights of trial {student.number}: {error}") from error
    return network.eval()


def _write_models(
    network: StudentNetwork, materials: Materials, *, folder: Path, form: Form, scored_on: ScoredOn
) -> tuple[OnnxCheck, Int8Check]:
    size = materials.teacher.recipe.size
    data = materials.training_data(torch.device("cpu"))
    expected = _torch_logits(network, data.validation)
    plain = to_onnx(network, size=size)
    difference = require_same(expected, onnx_logits(plain, data.validation), data.validation)
    calibration = data.train.grey[_spread(len(data.train), CALIBRATION_IMAGES)]
    small = quantise(plain, normalise(calibration).numpy())
    int8 = _check_int8(expected, onnx_logits(small, data.validation), data.validation, bound=form.int8_bound)
    int8 = int8.model_copy(update={"calibration_images": len(calibration)})
    if not int8.within_bound:
        small = mark(small, warning=f"loses {int8.drop:.4f} of Dice on the {scored_on} split, more than {int8.bound:g}")
    if form.preprocessing:
        plain, small = (with_preprocessing(content, size=size) for content in (plain, small))
    (folder / ONNX).write_bytes(plain)
    (folder / INT8).write_bytes(small)
    got = onnx_logits(plain, data.validation, raw=form.preprocessing)
    check = OnnxCheck(
        opset=OPSET,
        largest_difference=max(difference, require_same(expected, got, data.validation)),
        dice=mean_dice(got, data.validation),
        preprocessing=form.preprocessing,
    )
    return check, int8


def _check_int8(expected: Tensor, got: Tensor, images: Images, *, bound: float) -> Int8Check:
    dice = mean_dice(got, images)
    drop = mean_dice(expected, images) - dice
    return Int8Check(dice=dice, drop=drop, bound=bound, within_bound=drop <= bound, calibration_images=0)


@torch.inference_mode()
def _torch_logits(network: StudentNetwork, images: Images) -> Tensor:
    return predict_logits(network, images.grey)


def _spread(count: int, wanted: int) -> Tensor:
    """Positions spread evenly over ``count``, ``wanted`` of them at most."""
    return torch.from_numpy(np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64)))


def _latency(network: StudentNetwork, folder: Path, *, size: int) -> list[Latency]:
    return [*time_folder(folder), *(time_torch(network, size=size, threads=threads) for threads in thread_counts())]


def _describe(
    student: Student,
    study: StudyConfig,
    materials: Materials,
    *,
    network: StudentNetwork,
    checks: tuple[OnnxCheck, Int8Check],
    latency: list[Latency],
    files: dict[str, str],
    provenance: Provenance,
) -> Description:
    summary = asdict(summarise(materials.dataset, materials.splits, materials.unlabelled))
    del summary["validation_groups"], summary["unlabelled_fingerprint"]
    if provenance.scored_on == "test":
        summary |= {"validation": 0, "test": summary["validation"]}
    return Description(
        study=study.name,
        trial=student.number,
        recipe=student.recipe,
        classes=(study.data.class_name or NO_NAME,),
        input=Input(size=study.data.size, mean=GREY_MEAN, std=GREY_STD, whites=materials.dataset.whites),
        scored_on=provenance.scored_on,
        scores=student.scores.metrics(),
        lesion_images=student.scores.overlap.images,
        empty_images=student.scores.overlap.empty_images,
        chosen=provenance.chosen,
        test_openings=provenance.test_openings,
        tested=provenance.tested,
        counted_by=tuple(count.describe() for count in student.scores.tool_counts),
        subgroups=_subgroups(materials, network),
        native=_native(study, materials, network) if not materials.cached_because else None,
        data={**summary, "sources": ", ".join(summary["sources"])},
        onnx=checks[0],
        int8=checks[1],
        latency=tuple(Timing(**asdict(entry)) for entry in latency),
        made_with=_made_with(),
        files=files,
    )


def _subgroups(materials: Materials, network: StudentNetwork) -> tuple[Subgroup, ...]:
    """Dice by label and by source, where there are several."""
    images = materials.training_data(torch.device("cpu")).validation
    dice = lesion_dice(_torch_logits(network, images), images)
    infos = [materials.dataset.infos[position] for position in materials.splits.validation]
    found = []
    for kind, names in (("label", [info.label for info in infos]), ("source", [info.source for info in infos])):
        for name in sorted({name for name in names if name is not None}):
            part = dice[torch.tensor([other == name for other in names])]
            part = part[~part.isnan()]
            if len(part) and len(set(names)) > 1:
                spread = float(part.std(correction=0))
                found.append(
                    Subgroup(name=f"{kind} {name}", dice=float(part.mean()), dice_std=spread, images=len(part))
                )
    return tuple(found)


def _native(study: StudyConfig, materials: Materials, network: StudentNetwork) -> NativeScore:
    """Scores at the size of the files."""
    ids = [materials.dataset.infos[position].id for position in materials.splits.validation]
    run = torch_network(network, mean=GREY_MEAN, std=GREY_STD)
    images = native_images(study.data, set(ids), whites=materials.dataset.whites)
    found = native_scores(run, images, ids, size=study.data.size)
    return NativeScore(
        dice=float(np.nanmean(found.dice)),
        dice_std=float(np.nanstd(found.dice)),
        images=int((~np.isnan(found.dice)).sum()),
        nsd=float(np.nanmean(found.nsd)),
        hd95=float(np.nanmean(found.hd95)),
        missed=found.missed,
    )


def _made_with() -> dict[str, str]:
    names = ("torch", "onnx", "onnxruntime", "numpy")
    return {
        "kdsearch": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
        "processor": processor_name(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: digest_file(path)
        for path in sorted(folder.iterdir())
        if path.suffix in (".safetensors", ".onnx") or path.name == SEEN
    }


def find_shipped(folder: Path, student: Student, *, weights: Path, form: Form) -> Description | None:
    """What the folder says of itself where it holds that student in that form, whole; None where there is no folder.

    Raises KdsearchError where something else is there.
    """
    if not folder.exists():
        return None
    try:
        found = read_description(folder)
        for name in found.files:
            require_unchanged(folder / name, found)
        difference = _difference(found, student, weights=weights, form=form)
    except ModelError as error:
        difference = str(error)
    if difference:
        raise KdsearchError(f"{folder} exists already ({difference}); remove it, or name another folder with --out")
    return found


def _difference(found: Description, student: Student, *, weights: Path, form: Form) -> str:
    """What the folder holds else; empty where it is the same."""
    if found.trial != student.number or found.files.get(WEIGHTS) != digest_file(weights):
        return f"it holds trial {found.trial} of a study {found.study}, not these weights"
    if found.onnx.preprocessing != form.preprocessing:
        return f"it was written with{'' if found.onnx.preprocessing else 'out'} --with-preprocessing"
    if found.int8.bound != form.int8_bound:
        return f"it was written with --int8-bound {found.int8.bound:g}"
    if form.latency and not found.latency:
        return "it was written with --no-latency"
    return ""
