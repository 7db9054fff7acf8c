"""A study that was repeated with other splits and seeds: means, spreads and p-values of each recipe."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.table import Table

from kdsearch.config.quantity import format_quantity
from kdsearch.markdown import markdown_table
from kdsearch.report.table import latex_table
from kdsearch.statistics.comparisons import PairedDice, compare, holm
from kdsearch.statistics.resampling import LEVEL
from kdsearch.trials.recipe import Recipe
from kdsearch.trials.record import Student

Floats = npt.NDArray[np.float64]

HEAD = ("variant", "Dice %", "± images", "± repeats", "n", "p vs teacher", "p vs no teacher", "params")
"""Spreads are standard deviations over images and over the means of the n repeats."""

FEWEST_REPEATS = 5
"""With fewer repeats there is no verdict, because the spread over splits and seeds is hardly known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """One run of the study: its split, its seed, its students."""

    students: tuple[Student, ...]
    part: str
    """``validation`` or ``test``: the images that ``dice`` was measured on."""
    images: tuple[str, ...]
    """Names of the scored images with a lesion; the same image may score in several repeats."""
    groups: tuple[str, ...]
    """The group of each of those images, such as its patient."""
    test_to_train: float
    """Number of scored images with a lesion over that of training images with a lesion."""
    dice: dict[int, Floats]
    """Of each scored image, by trial."""
    teacher: Floats
    """Its Dice on the same images."""
    teacher_params: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One recipe over the repeats.

    p-values are the larger of two, as in ``statistics.comparisons.compare``: the corrected resampled t over the means
    of the repeats, and the sign-flip permutation over groups of images, each image counted once. They are not adjusted
    for the other variants, and None with a single repeat.
    """

    name: str
    repeats: int
    dice: float
    image_std: float
    repeat_std: float | None
    """Of the means of repeats; None with a single repeat."""
    params: int
    p_teacher: float | None
    p_plain: float | None
    """Compared with the undistilled twin; in the teacher's row, with the only undistilled student."""
    over_plain: float | None
    """Mean difference of Dice to that student over the images of common repeats; None without common repeats."""


def variants_of(repeats: Sequence[Repeat]) -> tuple[Variant, ...]:
    """The teacher, then each recipe in the order of its trials."""
    by_recipe = _by_recipe(repeats)
    every_plain = [found for recipe, found in by_recipe.items() if recipe.distillation is None]
    only = every_plain[0] if len(every_plain) == 1 else {}
    teacher = dict(enumerate(repeat.teacher for repeat in repeats))
    plain = _dice(only, repeats)
    rows = [_variant("teacher", teacher, repeats, params=repeats[0].teacher_params, teacher={}, plain=plain)]
    for (recipe, found), name in zip(by_recipe.items(), names_of(list(by_recipe)), strict=True):
        own = {} if recipe.distillation is None else by_recipe.get(recipe.model_copy(update={"distillation": None}), {})
        params = next(iter(found.values())).scores.params
        plain = _dice(own, repeats)
        rows.append(_variant(name, _dice(found, repeats), repeats, params=params, teacher=teacher, plain=plain))
    return tuple(rows)


def verdict(variants: Sequence[Variant]) -> str:
    """Which ways to distil are significantly better or worse than no teacher, adjusted for all comparisons (Holm).

    Empty if nothing is compared. Fewer than ``FEWEST_REPEATS`` repeats give no verdict.
    """
    compared = [one for one in variants[1:] if one.over_plain is not None]
    if not compared:
        return ""
    fewest = min(one.repeats for one in compared)
    if fewest < FEWEST_REPEATS:
        return (
            f"{fewest} repeat{'s' * (fewest > 1)}: too few for a verdict on distillation, which needs {FEWEST_REPEATS} "
            "(set repeats: 5 in the study file)."
        )
    shown: dict[bool, list[str]] = {True: [], False: []}
    for one, p in zip(compared, holm([1.0 if one.p_plain is None else one.p_plain for one in compared]), strict=True):
        if p < 1 - LEVEL and one.over_plain is not None:
            shown[one.over_plain > 0].append(f"{one.name} ({100 * one.over_plain:+.1f} points)")
    count = f"{len(compared)} comparison{'s' * (len(compared) > 1)}"
    rest = len(compared) - len(shown[True]) - len(shown[False])
    return (
        f"Compared with the undistilled twin, adjusted for {count} (Holm, {LEVEL:.0%}): "
        f"better: {', '.join(shown[True]) or 'none'}; worse: {', '.join(shown[False]) or 'none'}; inconclusive: {rest}."
    )


def averaged(repeats: Sequence[Repeat]) -> tuple[Student, ...]:
    """One student per recipe, under the number of its first trial, with the mean scores over repeats."""
    return tuple(_averaged(found, repeats) for found in _by_recipe(repeats).values())


def names_of(recipes: Sequence[Recipe]) -> list[str]:
    """Each recipe's name; if several recipes share a name, the settings in which they differ are added."""
    alike: dict[str, list[dict[str, str]]] = defaultdict(list)
    for recipe in recipes:
        alike[name_of(recipe)].append(recipe.settings())
    found = []
    for recipe in recipes:
        name, own = name_of(recipe), recipe.settings()
        differing = [key for key in own if any(other.get(key) != own[key] for other in alike[name])]
        found.append(", ".join([name, *(f"{key.rpartition('.')[2]} {own[key]}" for key in differing)]))
    return found


def name_of(recipe: Recipe) -> str:
    """``logits kld weak``, or ``no teacher``."""
    terms = recipe.distillation.terms if recipe.distillation is not None else ()
    return " + ".join(f"{term.path} {term.loss} {term.teacher_view}" for term in terms) or "no teacher"


def variants_table(variants: Sequence[Variant], *, part: str) -> Table:
    """For the terminal; ``part`` names the scored images."""
    title = f"Over repeats, each with another split and seed; {part} images"
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(HEAD):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in variant_rows(variants):
        table.add_row(*row)
    return table


def variants_markdown(variants: Sequence[Variant]) -> str:
    """In Markdown."""
    return markdown_table(HEAD, variant_rows(variants))


def variants_latex(variants: Sequence[Variant]) -> str:
    """For LaTeX, with booktabs."""
    return latex_table(HEAD, variant_rows(variants))


def variant_rows(variants: Sequence[Variant]) -> list[tuple[str, ...]]:
    """One row per variant, with the columns of ``HEAD``."""
    return [
        (
            row.name,
            f"{100 * row.dice:.2f}",
            f"{100 * row.image_std:.2f}",
            "" if row.repeat_std is None else f"{100 * row.repeat_std:.2f}",
            str(row.repeats),
            _p(row.p_teacher),
            _p(row.p_plain),
            format_quantity(row.params),
        )
        for row in variants
    ]


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _by_recipe(repeats: Sequence[Repeat]) -> dict[Recipe, dict[int, Student]]:
    """Students by recipe, ignoring its seed, and by repeat."""
    found: dict[Recipe, dict[int, Student]] = defaultdict(dict)
    for index, repeat in enumerate(repeats):
        for student in repeat.students:
            if student.number in repeat.dice:
                found[student.recipe.model_copy(update={"seed": 0})].setdefault(index, student)
    return dict(found)


def _dice(found: dict[int, Student], repeats: Sequence[Repeat]) -> dict[int, Floats]:
    return {index: repeats[index].dice[student.number] for index, student in found.items()}


def _variant(
    name: str,
    dice: dict[int, Floats],
    repeats: Sequence[Repeat],
    *,
    params: int,
    teacher: dict[int, Floats],
    plain: dict[int, Floats],
) -> Variant:
    images = np.concatenate(list(dice.values()))
    means = [float(values.mean()) for values in dice.values()]
    over_plain = _paired(dice, plain, repeats)
    return Variant(
        name=name,
        repeats=len(dice),
        dice=float(images.mean()),
        image_std=float(images.std()),
        repeat_std=float(np.std(means, ddof=1)) if len(means) > 1 else None,
        params=params,
        p_teacher=_p_value(_paired(dice, teacher, repeats), repeats),
        p_plain=_p_value(over_plain, repeats),
        over_plain=None if over_plain is None else float(np.nanmean(over_plain.by_image)),
    )


def _p_value(pair: PairedDice | None, repeats: Sequence[Repeat]) -> float | None:
    if pair is None or pair.by_fold.size < 2:
        return None
    return compare([pair], list(_groups(repeats).values()))[0].p


def _groups(repeats: Sequence[Repeat]) -> dict[str, str]:
    """The group of each image that is scored in any repeat."""
    return {image: group for repeat in repeats for image, group in zip(repeat.images, repeat.groups, strict=True)}


def _paired(a: dict[int, Floats], b: dict[int, Floats], repeats: Sequence[Repeat]) -> PairedDice | None:
    """Over common repeats; None without any. An image of several repeats counts once, with its mean over them."""
    both = sorted(a.keys() & b.keys())
    if not both:
        return None
    found: dict[str, list[float]] = {image: [] for image in _groups(repeats)}
    for index in both:
        for image, difference in zip(repeats[index].images, a[index] - b[index], strict=True):
            found[image].append(float(difference))
    return PairedDice(
        by_fold=np.array([(a[index] - b[index]).mean() for index in both]),
        by_image=np.array([np.mean(values) if values else np.nan for values in found.values()]),
        test_to_train=float(np.mean([repeats[index].test_to_train for index in both])),
    )


def _averaged(found: dict[int, Student], repeats: Sequence[Repeat]) -> Student:
    """The first student, with the mean over repeats of everything that can be an objective."""
    students, dice = list(found.values()), list(_dice(found, repeats).values())
    scores = students[0].scores
    overlap = dataclasses.replace(
        scores.overlap,
        dice=float(np.mean([values.mean() for values in dice])),
        dice_std=float(np.mean([values.std() for values in dice])),
        iou=float(np.mean([student.scores.overlap.iou for student in students])),
        images=len(dice[0]),
        specificity=_mean(student.scores.overlap.specificity for student in students),
    )
    latency = _mean(student.scores.latency_ms for student in students)
    return dataclasses.replace(
        students[0],
        scores=dataclasses.replace(scores, overlap=overlap, by_source=(), per_image=None, latency_ms=latency),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
