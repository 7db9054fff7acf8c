"""The model card of a picked student, with facts from the study only (Mitchell et al. 2019)."""

from __future__ import annotations

from kdsearch.config.networks import MAY_HAVE_SEEN, TeacherConfig, TimmSpec
from kdsearch.config.study import StudyConfig
from kdsearch.data.source import origin
from kdsearch.export.description import Description
from kdsearch.markdown import markdown_table
from kdsearch.models.encoders import licence_of
from kdsearch.trials.scores import ScoredOn, Scores

FRONT_MATTER = """---
library_name: onnxruntime
pipeline_tag: image-segmentation
tags: [{tags}]
license: other
metrics: [dice]
---"""
"""Metadata for model hubs."""
TAGS = ("segmentation", "knowledge-distillation", "kdsearch")
"""Tags on every card, after the study's own."""
_FIT = {"stretch": "without keeping their aspect ratio", "pad": "with their aspect ratio, and padded with black"}
_SCORED_ON: dict[ScoredOn, str] = {"validation": "Validation Dice", "test": "Dice on the locked test images"}


def model_card(description: Description, study: StudyConfig, *, teacher: Scores) -> str:
    """Returns the card as Markdown."""
    sections = (
        FRONT_MATTER.format(tags=", ".join(dict.fromkeys((*study.tags, *TAGS)))),
        f"# {description.study}, trial {description.trial}",
        _summary(description),
        _use(description),
        _data(description, study),
        _metrics(description, teacher),
        _sizes(description),
        _limits(description),
        _making(description, study),
        _running(description),
    )
    return "\n\n".join(sections) + "\n"


def _summary(d: Description) -> str:
    spec = d.recipe.student
    made = "trained without a teacher" if d.recipe.distillation is None else f"distilled with path `{d.recipe.path}`"
    if d.recipe.start is not None:
        made += f", starting from weights inherited from the wider student of trial {d.recipe.start.donor}"
    return (
        f"A {spec.describe()}, "
        f"{made}: {d.scores['params']:,.0f} parameters, {d.scores['macs']:,.0f} multiply-adds "
        f"for one {d.task.describe_size()} image. {_SCORED_ON[d.scored_on]} "
        f"{100 * d.scores['dice']:.1f} % ± {100 * d.scores['dice_std']:.1f} (standard deviation over images)."
    )


def _use(d: Description) -> str:
    return (
        "## Intended use\n\n"
        f"Predicts the class{'es' * (len(d.classes) > 1)} {' and '.join(d.classes)} in "
        f"{'color' if d.input.channels == 3 else 'grayscale'} images like those it was trained on, for research. It is "
        "not a certified product, such as a medical device, and has been evaluated only as described below."
    )


def _class(d: Description) -> str:
    return " or ".join(d.classes)


def _data(d: Description, study: StudyConfig) -> str:
    lines = [f"- {source.reader}: {origin(source.reader)}" for source in study.data.sources]
    if d.data.get("unlabelled"):
        lines += [f"- {source.reader}, without masks: {origin(source.reader)}" for source in study.data.unlabelled]
    counts = [int(d.data[name]) for name in ("images", "train", "validation", "test")]
    left = counts[0] - sum(counts[1:])
    openings = d.test_openings
    tested = f"used {openings} time{'s' * (openings > 1)}" if openings else "not used yet"
    validated = f"{d.data['validation']} for validation, " if d.scored_on == "validation" else ""
    left_out = f" {left} negative images (without {_class(d)}) were left out of training." if left else ""
    unlabelled = (
        f" {d.data['unlabelled']} more images without masks were used, with the teacher's predictions only."
        if d.data.get("unlabelled")
        else ""
    )
    return (
        "## Data\n\n" + "\n".join(lines) + f"\n\n{d.data['images']} images: {d.data['train']} for training, "
        f"{validated}{d.data['test']} locked for testing ({tested}). Images of one group (such as a patient, or "
        f"near-duplicates) are in the same part of the split.{left_out}{unlabelled} "
        f"Fingerprint of the images: `{d.data['fingerprint']}`; of the split: `{d.data['split']}`."
        + (f"\n\nCaution: {d.data['caution']}." if d.data.get("caution") else "")
    )


def _metrics(d: Description, teacher: Scores) -> str:
    rows = [(f"all with {_class(d)}", d.scores["dice"], d.scores["dice_std"], d.lesion_images)]
    if d.native is not None:
        rows.append(("the same, at original resolution", d.native.dice, d.native.dice_std, d.native.images))
    rows += [(f"class {group.name}", group.dice, group.dice_std, group.images) for group in d.by_class]
    rows += [(group.name, group.dice, group.dice_std, group.images) for group in d.subgroups]
    table = markdown_table(
        ("images", "Dice %", "± over images", "count"),
        ((name, f"{100 * dice:.1f}", f"{100 * std:.1f}", str(count)) for name, dice, std, count in rows),
    )
    scored_on = {
        "validation": "On the validation images, which were also used to choose this student, so that these scores "
        "are optimistic",
        "test": "On the locked test images, which these weights were not trained on",
    }[d.scored_on]
    right = round(d.scores.get("specificity", 0.0) * d.empty_images)
    negatives = (
        f"Specificity: nothing was predicted in {right} of {d.empty_images} negative images (without {_class(d)}). "
        if d.empty_images
        else ""
    )
    warning = (
        ""
        if d.int8.within_bound
        else f" **It loses more than the bound of {100 * d.int8.bound:g} points; the file contains a warning.**"
    )
    return (
        f"## Metrics\n\n{d.chosen}\n\n{scored_on}:\n\n{table}\n\n{_several(d)}{_outlines(d)}{negatives}"
        f"The teacher ({teacher.size()}) reaches {100 * teacher.dice:.1f} % Dice on the same images. The ONNX file "
        f"reaches {100 * d.onnx.dice:.2f} %; its logits differ from torch's by at most "
        f"{d.onnx.largest_difference:.1g}. The 8-bit file reaches {100 * d.int8.dice:.2f} % "
        f"({-100 * d.int8.drop:+z.2f} points).{warning}"
    )


def _several(d: Description) -> str:
    """What scores of several classes mean."""
    if "miou" not in d.scores:
        return ""
    return (
        "Dice is the mean over classes of the mean over images; a class counts in an image if it is in the mask or the "
        f"prediction. The mean IoU over all classes, background included, is {100 * d.scores['miou']:.1f} % (from the "
        "confusion matrix of all images). "
    )


def _outlines(d: Description) -> str:
    native = d.native
    if native is None or native.nsd is None or native.hd95 is None:
        return ""
    missed = native.missed or "None"
    return (
        f"At original resolution, the normalized surface Dice is {100 * native.nsd:.1f} % (tolerance: 1 % of the "
        f"diagonal, or the study's setting) and HD95 is {100 * native.hd95:.1f} % of the diagonal. {missed} "
        f"of the {native.images} images with {_class(d)} were missed entirely. "
    )


def _sizes(d: Description) -> str:
    if not d.latency:
        return "## Latency\n\nNot measured when this student was picked. Measure it with `kdsearch bench`."
    rows = (
        (
            t.runtime,
            str(t.threads),
            f"{t.median_ms:.2f}",
            f"{t.p95_ms:.2f}",
            f"{t.runs}{'' if t.steady else ', unsteady'}",
        )
        for t in d.latency
    )
    table = markdown_table(("runtime", "threads", "median ms", "95th percentile ms", "runs"), rows)
    where = f"One {d.task.describe_size()} image, after warm-up, on {d.made_with['processor']}."
    return f"## Latency\n\n{where} Measure other machines with `kdsearch bench`.\n\n{table}"


def _limits(d: Description) -> str:
    return (
        "## Limits\n\n"
        f"- {_what_test(d)}\n"
        f"- Images are resized to {d.task.describe_size()} {_FIT[d.input.fit]}, as in training.\n"
        "- Results may differ on images from devices, sites or populations that are not in the data."
    )


def _what_test(d: Description) -> str:
    if not d.test_openings:
        return "These scores have not been checked on a held-out or external test set."
    if not d.tested:
        return "The locked test images were used only to test another student's settings."
    if d.scored_on == "test":
        often = "once" if d.test_openings == 1 else f"{d.test_openings} times, so choices may have been based on them"
        return f"These weights were scored on the locked test images. Those were used {often}."
    return (
        "The locked test images scored networks with the same settings, trained on all other images. These weights "
        "were trained on fewer images and were not tested."
    )


def _making(d: Description, study: StudyConfig) -> str:
    teacher, spec = study.teacher, d.recipe.student
    weights = f"; {MAY_HAVE_SEEN}"
    if isinstance(teacher, TeacherConfig) and teacher.file is None:
        weights = f"; {licence_of(teacher.weights)}"
    settings = "\n".join(f"- {name}: {value}" for name, value in d.recipe.settings().items())
    versions = ", ".join(f"{name} {version}" for name, version in d.made_with.items())
    encoder = f" Encoder weights: {licence_of(spec.weights)}." if isinstance(spec, TimmSpec) else ""
    return (
        f"## How it was made\n\nTrial {d.trial} of study `{d.study}`; {versions}. `environment.txt` lists all "
        f"packages. Teacher: {teacher.title}{weights}.{encoder} Settings:\n\n{settings}"
    )


def _deep(d: Description) -> str:
    """How to prepare images of more than 8 bits."""
    if not d.input.whites:
        return ""
    whites = " or ".join(f"{white:g}" for white in d.input.whites)
    least = ", the smallest that is at least the brightest pixel," if len(d.input.whites) > 1 else ""
    return (
        f" Images of more than 8 bits must first be scaled so that {whites}{least} becomes 255, then clipped to 0-255 "
        "and rounded to uint8; kdsearch does the same."
    )


def _running(d: Description) -> str:
    name = "pixels" if d.onnx.preprocessing else "image"
    feed = (
        f"`{name}`: N×H×W×3 RGB colors as uint8, 0-255, any size"
        if d.onnx.preprocessing
        else f"`{name}`: N×{d.task.channels}×{d.task.describe_size()} "
        f"{'colors' if d.task.channels == 3 else 'gray values'}, scaled as described in `student.yaml`"
    )
    several = ", ".join(("background", *d.classes))
    meaning = (
        f"A pixel belongs to the class {_class(d)} if its logit is above zero."
        if len(d.classes) == 1
        else f"A pixel belongs to the class with the largest logit, in the order {several}."
    )
    return (
        f"## How to run it\n\nWith kdsearch: `kdsearch predict FOLDER image.png --out masks`, or "
        '`kdsearch.load_student("FOLDER")(image)` in Python. With ONNX Runtime only:\n\n'
        '```python\nimport onnxruntime\nsession = onnxruntime.InferenceSession("model.onnx")\n'
        f'logits = session.run(["logits"], {{"{name}": batch}})[0]\n```\n\n'
        f"{feed}. `logits`: N×{d.task.outputs}×{d.task.describe_size()}; resize them to the image's size (bilinear). "
        f"{meaning}{_deep(d)}"
    )
