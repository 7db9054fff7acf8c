"""The model card of a picked student: facts of the study, nothing else (Mitchell et al. 2019)."""

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
"""What model hubs read."""
TAGS = ("segmentation", "knowledge-distillation", "kdsearch")
"""Of every card."""


_SCORED_ON: dict[ScoredOn, str] = {"validation": "Validation Dice", "test": "Dice on the locked test images"}


def model_card(description: Description, study: StudyConfig, *, teacher: Scores) -> str:
    """The card as Markdown."""
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
    made = "trained on masks alone" if d.recipe.distillation is None else f"distilled by path `{d.recipe.path}`"
    if d.recipe.start is not None:
        made += f" from weights cut out of the wider student of trial {d.recipe.start.donor}"
    return (
        f"A {spec.describe()}, "
        f"{made}: {d.scores['params']:,.0f} parameters, {d.scores['macs']:,.0f} multiply-adds "
        f"for one image of {d.input.size}×{d.input.size}. {_SCORED_ON[d.scored_on]} "
        f"{100 * d.scores['dice']:.1f} % ± {100 * d.scores['dice_std']:.1f} (standard deviation over images)."
    )


def _use(d: Description) -> str:
    return (
        "## Intended use\n\n"
        f"Predicts the class {_class(d)} in grey-scale images like those it was trained on, for research. It is not a "
        "certified product, such as a medical device, and nothing beyond the scores below has been shown about it."
    )


def _class(d: Description) -> str:
    """What the masks outline."""
    return ", ".join(d.classes)


def _data(d: Description, study: StudyConfig) -> str:
    lines = [f"- {source.reader}: {origin(source.reader)}" for source in study.data.sources]
    if d.data.get("unlabelled"):
        lines += [f"- {source.reader}, without its masks: {origin(source.reader)}" for source in study.data.unlabelled]
    counts = [int(d.data[name]) for name in ("images", "train", "validation", "test")]
    left = counts[0] - sum(counts[1:])
    openings = d.test_openings
    tested = f", which was made {openings} time{'s' * (openings > 1)}" if openings else " that was not made yet"
    validated = f"{d.data['validation']} to validate, " if d.scored_on == "validation" else ""
    left_out = f" {left} without {_class(d)} were left out of training." if left else ""
    unlabelled = (
        f" {d.data['unlabelled']} further images taught through the teacher alone." if d.data.get("unlabelled") else ""
    )
    return (
        "## Data\n\n" + "\n".join(lines) + f"\n\n{d.data['images']} images: {d.data['train']} to train on, "
        f"{validated}{d.data['test']} locked away for a test{tested}. Groups "
        f"(such as patients, and near-duplicates) stay on one side of the split.{left_out}{unlabelled} "
        f"Fingerprint of the images `{d.data['fingerprint']}`, of the split `{d.data['split']}`."
        + (f"\n\nCaution: {d.data['caution']}." if d.data.get("caution") else "")
    )


def _metrics(d: Description, teacher: Scores) -> str:
    rows = [(f"all with {_class(d)}", d.scores["dice"], d.scores["dice_std"], d.lesion_images)]
    if d.native is not None:
        rows.append(("the same, at their files' size", d.native.dice, d.native.dice_std, d.native.images))
    rows += [(group.name, group.dice, group.dice_std, group.images) for group in d.subgroups]
    table = markdown_table(
        ("images", "Dice %", "± over images", "how many"),
        ((name, f"{100 * dice:.1f}", f"{100 * std:.1f}", str(count)) for name, dice, std, count in rows),
    )
    outlines = _outlines(d)
    right = round(d.scores.get("specificity", 0.0) * d.empty_images)
    words = (
        f"In {right} of the {d.empty_images} images without {_class(d)} nothing was predicted. "
        if d.empty_images
        else ""
    )
    mark = "" if d.int8.within_bound else " **It is over the bound that was set; the file is marked.**"
    return (
        f"## Metrics\n\n{d.chosen}\n\n{_what_figures(d)}:\n\n{table}\n\n{outlines}{words}"
        f"The teacher reaches {100 * teacher.dice:.1f} % ({teacher.size()}) on the "
        f"same images. The ONNX file reaches {100 * d.onnx.dice:.2f} %, its logits within "
        f"{d.onnx.largest_difference:.1g} of torch's; the eight-bit file {100 * d.int8.dice:.2f} %, "
        f"{-100 * d.int8.drop:+z.2f} points.{mark}"
    )


def _what_figures(d: Description) -> str:
    if d.scored_on == "validation":
        return "On the validation split, by which this student was also chosen, so that they flatter it"
    return "On the locked test images, of which these weights learnt nothing"


def _outlines(d: Description) -> str:
    native = d.native
    if native is None or native.nsd is None or native.hd95 is None:
        return ""
    missed = f"{native.missed} were missed" if native.missed else "none was missed"
    return (
        f"At their files' size the normalised surface Dice is {100 * native.nsd:.1f} % (tolerance 1 % of the diagonal, "
        f"or as the study says), HD95 {100 * native.hd95:.1f} % of the diagonal; of the {native.images} images with "
        f"{_class(d)} {missed}. "
    )


def _sizes(d: Description) -> str:
    if not d.latency:
        return "## Latency\n\nNot measured when this student was picked; `kdsearch bench` measures it."
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
    table = markdown_table(("runtime", "threads", "median ms", "95 % within ms", "runs"), rows)
    size = f"{d.input.size}×{d.input.size}"
    where = f"One image of {size}, warmed up, on {d.made_with['processor']}; `kdsearch bench` measures it elsewhere."
    return f"## Latency\n\n{where}\n\n{table}"


def _limits(d: Description) -> str:
    return (
        "## Limits\n\n"
        f"- {_what_test(d)}\n"
        f"- Images are shrunk to {d.input.size}×{d.input.size} without regard to their proportions, "
        "as were those it learnt from.\n"
        "- Images of other devices, places and people than those in the data may give other results."
    )


def _what_test(d: Description) -> str:
    if not d.test_openings:
        return "No test on locked or external images stands behind these figures."
    if not d.tested:
        return "The locked images were opened, but for another recipe than this student's."
    if d.scored_on == "test":
        often = (
            "once" if d.test_openings == 1 else f"{d.test_openings} times, so that choices may have been made by them"
        )
        return f"The locked images, by which these very weights were scored, were opened {often}."
    return (
        "The locked images tested networks of this recipe that were trained on all others, not these very weights, "
        "which were trained on fewer images."
    )


def _making(d: Description, study: StudyConfig) -> str:
    teacher, spec = study.teacher, d.recipe.student
    weights = f"; {MAY_HAVE_SEEN}"
    if isinstance(teacher, TeacherConfig) and teacher.file is None:
        weights = f"; {licence_of(teacher.weights)}"
    settings = "\n".join(f"- {name}: {value}" for name, value in d.recipe.settings().items())
    versions = ", ".join(f"{name} {version}" for name, version in d.made_with.items())
    begun = f" Its encoder began with: {licence_of(spec.weights)}." if isinstance(spec, TimmSpec) else ""
    return (
        f"## How it was made\n\nBy kdsearch, study `{d.study}`, trial {d.trial}; {versions}. `environment.txt` "
        f"lists every package. Teacher: {teacher.title}{weights}."
        f"{begun} Recipe:\n\n{settings}"
    )


def _deep(d: Description) -> str:
    """How images of more than 8 bits become what the graph takes."""
    if not d.input.whites:
        return ""
    whites = " or ".join(f"{white:g}" for white in d.input.whites)
    least = ", the least that holds the brightest pixel," if len(d.input.whites) > 1 else ""
    return (
        f" Images of more than 8 bits are scaled first, so that {whites}{least} becomes 255, cut to 0-255 and rounded "
        "to uint8, as kdsearch does."
    )


def _running(d: Description) -> str:
    name = "pixels" if d.onnx.preprocessing else "image"
    feed = (
        f"`{name}`: N×H×W×3 colours of 0-255 as uint8, of any size"
        if d.onnx.preprocessing
        else f"`{name}`: N×1×{d.input.size}×{d.input.size}, grey values as `student.yaml` says"
    )
    return (
        f"## How to run it\n\nWith kdsearch: `kdsearch predict FOLDER image.png --out masks`, or "
        '`kdsearch.load_student("FOLDER")(image)` in Python. With ONNX Runtime alone:\n\n'
        '```python\nimport onnxruntime\nsession = onnxruntime.InferenceSession("model.onnx")\n'
        f'logits = session.run(["logits"], {{"{name}": batch}})[0]\n```\n\n'
        f"{feed}. `logits`: N×1×{d.input.size}×{d.input.size}, to be resized to the image's size (bilinear); a pixel "
        f"belongs to the class {_class(d)} where its logit is above zero.{_deep(d)}"
    )
