"""Writes a picked student to a folder: models, weights, description, model card and list of known images."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kdsearch.config.study import StudyConfig
from kdsearch.config.task import Task
from kdsearch.data.frame import Frame
from kdsearch.data.native import native_images
from kdsearch.data.neighbors import summarize
from kdsearch.distill.loop import predict_logits
from kdsearch.distill.materials import Materials
from kdsearch.errors import KdsearchError, ModelError
from kdsearch.export.card import model_card
from kdsearch.export.checks import lesion_dice, mean_dice, native_scores, onnx_logits, require_same
from kdsearch.export.description import (
    NO_NAME,
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
from kdsearch.export.onnx_graph import (
    CALIBRATION_IMAGES,
    OPSET,
    facts_about,
    mark,
    quantize,
    to_onnx,
    with_preprocessing,
)
from kdsearch.export.seen import FILE as SEEN
from kdsearch.export.timing import DESCRIPTION, INT8, ONNX, WEIGHTS, thread_counts, time_folder, time_torch
from kdsearch.files.atomic import atomic_folder
from kdsearch.files.digests import digest_file
from kdsearch.measure.latency import Latency, processor_name
from kdsearch.models.contract import INPUT_MEAN, INPUT_STD, normalize
from kdsearch.models.students import StudentNetwork, build_student
from kdsearch.trials.record import Student
from kdsearch.trials.scores import ScoredOn
from kdsearch.version import __version__, installed_packages

ALONE = "predict.py"
"""Runs the student without kdsearch; copied into its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a student was chosen, and with which images."""

    chosen: str
    """Why it was picked, and what is known about it."""
    seen: str
    """Content of ``seen.txt``: the images it was trained on or selected by, and the locked ones."""
    test_openings: int = 0
    """How often the study's locked test images had been used."""
    tested: bool = False
    """Whether they tested this student's recipe."""
    scored_on: ScoredOn = "validation"
    """What the validation images of its materials are; ``test`` if they are the locked test images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a student is exported."""

    preprocessing: bool
    """Whether the graph includes conversion to gray, resizing and scaling."""
    int8_bound: float
    """The 8-bit model gets a warning if it loses more Dice than this, 0-1."""
    latency: bool = True
    """Whether to measure the latency on this machine."""


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
    """Writes the student to a new folder, completely or not at all, and returns its description.

    Raises KdsearchError if the folder exists or the weights are missing, and ExportError if the ONNX model does not
    compute the same as torch.
    """
    if folder.exists():
        raise KdsearchError(f"{folder} exists already; remove it, or choose another folder with --out")
    if form.preprocessing and study.data.fit == "pad":
        raise KdsearchError(
            "--with-preprocessing: the graph cannot pad images, but the study has data.fit: pad; pick without it, and "
            "pad images as student.yaml says"
        )
    network = load_weights(student, weights, study.data.task)
    with atomic_folder(folder) as draft:
        shutil.copyfile(weights, draft / WEIGHTS)
        facts = facts_about(study.data.task, names=study.data.class_names or (NO_NAME,), fit=study.data.fit)
        checks = _write_models(network, materials, folder=draft, form=form, scored_on=provenance.scored_on, facts=facts)
        shutil.copyfile(Path(__file__).with_name(ALONE), draft / ALONE)
        (draft / "overlays.png").write_bytes(overlays)
        (draft / "environment.txt").write_text(installed_packages(), encoding="utf-8")
        (draft / SEEN).write_text(provenance.seen, encoding="utf-8")
        latency: list[Latency] = []
        if form.latency:
            latency += time_folder(draft)
            latency += [time_torch(network, study.data.task, threads=threads) for threads in thread_counts()]
        description = _describe(
            student,
            study,
            materials,
            network=network,
            checks=checks,
            latency=latency,
            files=_digests(draft),
            provenance=provenance,
        )
        (draft / DESCRIPTION).write_text(dump_description(description), encoding="utf-8")
        card = model_card(description, study, teacher=materials.teacher.scores)
        (draft / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    return description


def load_weights(student: Student, weights: Path, task: Task) -> StudentNetwork:
    """Returns the student's trained network in evaluation mode; raises KdsearchError if its weights are missing."""
    if not weights.is_file():
        raise KdsearchError(
            f"the weights of trial {student.number} are not at {weights}; has KDSEARCH_HOME changed since?"
        )
    network = build_student(student.recipe.student, channels=task.channels, outputs=task.outputs, begun=False)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise KdsearchError(f"{weights}: not the weights of trial {student.number}: {error}") from error
    return network.eval()


def _write_models(
    network: StudentNetwork,
    materials: Materials,
    *,
    folder: Path,
    form: Form,
    scored_on: ScoredOn,
    facts: Mapping[str, str],
) -> tuple[OnnxCheck, Int8Check]:
    task = materials.teacher.recipe.task
    data = materials.training_data(torch.device("cpu"))
    expected = predict_logits(network, data.validation.pixels)
    plain = to_onnx(network, task)
    difference = require_same(expected, onnx_logits(plain, data.validation), data.validation)
    calibration = data.train.pixels[_spread(len(data.train), CALIBRATION_IMAGES)]
    small = quantize(plain, normalize(calibration).numpy())
    dice = mean_dice(onnx_logits(small, data.validation), data.validation)
    drop = mean_dice(expected, data.validation) - dice
    int8 = Int8Check(
        dice=dice,
        drop=drop,
        bound=form.int8_bound,
        within_bound=drop <= form.int8_bound,
        calibration_images=len(calibration),
    )
    if not int8.within_bound:
        loss = f"loses {int8.drop:.4f} of Dice on the {scored_on} split, more than {int8.bound:g}"
        small = mark(small, {"kdsearch.warning": loss})
    if form.preprocessing:
        plain, small = (with_preprocessing(content, task) for content in (plain, small))
    plain, small = (mark(content, facts) for content in (plain, small))
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


def _spread(count: int, wanted: int) -> Tensor:
    """Returns at most ``wanted`` evenly spaced positions below ``count``."""
    return torch.from_numpy(np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64)))


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
    summary = asdict(summarize(materials.dataset, materials.splits, materials.unlabelled))
    del summary["validation_groups"], summary["unlabelled_fingerprint"]
    if provenance.scored_on == "test":
        summary |= {"validation": 0, "test": summary["validation"]}
    return Description(
        study=study.name,
        trial=student.number,
        recipe=student.recipe,
        classes=study.data.class_names or (NO_NAME,),
        lesion_where="largest logit" if study.data.task.outputs > 1 else "logit > 0",
        input=Input.of(study.data, whites=materials.dataset.whites),
        scored_on=provenance.scored_on,
        scores=student.scores.metrics(),
        lesion_images=student.scores.overlap.images,
        empty_images=student.scores.overlap.empty_images,
        chosen=provenance.chosen,
        test_openings=provenance.test_openings,
        tested=provenance.tested,
        counted_by=tuple(count.describe() for count in student.scores.tool_counts),
        subgroups=_subgroups(materials, network),
        by_class=tuple(
            Subgroup(name=one.name, dice=one.dice, dice_std=one.dice_std, images=one.images)
            for one in student.scores.overlap.classes
        ),
        native=_native(study, materials, network) if not materials.cached_because else None,
        data={**summary, "sources": ", ".join(summary["sources"])},
        onnx=checks[0],
        int8=checks[1],
        latency=tuple(Timing(**asdict(entry)) for entry in latency),
        made_with=_made_with(),
        files=files,
    )


def _subgroups(materials: Materials, network: StudentNetwork) -> tuple[Subgroup, ...]:
    """Dice by label and by source, if there are several."""
    images = materials.training_data(torch.device("cpu")).validation
    dice = lesion_dice(predict_logits(network, images.pixels), images)
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
    """Scores at original resolution."""
    ids = [materials.dataset.infos[position].id for position in materials.splits.validation]
    run = torch_network(network, mean=INPUT_MEAN, std=INPUT_STD)
    images = native_images(study.data, set(ids), whites=materials.dataset.whites)
    found = native_scores(run, images, ids, Frame.of(study.data))
    return NativeScore(
        dice=found.mean_dice,
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
    """Returns the description if the folder already contains this student in this form; None if there is no folder.

    Raises KdsearchError if the folder contains something else or is damaged.
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
        raise KdsearchError(f"{folder} exists already ({difference}); remove it, or choose another folder with --out")
    return found


def _difference(found: Description, student: Student, *, weights: Path, form: Form) -> str:
    """How the folder differs from what would be written; empty if it is the same."""
    if found.trial != student.number or found.files.get(WEIGHTS) != digest_file(weights):
        return f"it contains trial {found.trial} of study {found.study}, with other weights"
    if found.onnx.preprocessing != form.preprocessing:
        return f"it was written with{'' if found.onnx.preprocessing else 'out'} --with-preprocessing"
    if found.int8.bound != form.int8_bound:
        return f"it was written with --int8-bound {found.int8.bound:g}"
    if form.latency and not found.latency:
        return "it was written with --no-latency"
    return ""
