"""A confirmation, or a test, in tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kdsearch.config.quantity import format_quantity
from kdsearch.markdown import markdown_table
from kdsearch.report.teacher import confirmed_no_better
from kdsearch.statistics.confirmation import ArmAnswer, Confirmation, Effect, Estimate, Testing, verdict_of

Rows = list[tuple[str, ...]]
"""The head, then the rows."""

DETAILS = (
    "All in %, except missed. NSD: surface Dice; HD95: outline distance, % of the diagonal; hit: lesions that the "
    "prediction touches; missed: lesions with an empty prediction; false alarms: negative images with a prediction; "
    "small: Dice on the smallest third of the lesions"
)
"""What the columns of ``detail_cells`` mean."""
WORDS = ("student", "distillation", "images of", "role", "part", "source", "label")
"""Columns of words; all others hold numbers."""
IN_TWO_LINES = {
    "search was too high by": "search\ntoo high",
    "missed (n)": "missed\n(n)",
    "Dice < 50 %": "Dice <\n50 %",
    "false alarms": "false\nalarms",
    "vs teacher [95 %]": "vs teacher\n[95 %]",
}
"""Heads of narrow columns, so that a table fits 80 columns."""
EARLIER_RULE = (
    "This plan was fixed under an earlier rule and keeps it: the pooled effect and all pairs share one error rate "
    "(Holm), and every smaller student is compared with every larger one."
)
EXPLORATORY = (
    "The pooled effect is inconclusive, so the pairs are exploratory: each has an ordinary 95 % interval, not adjusted "
    "for the others, and no verdict."
)
DROPPED: dict[Testing, str] = {
    "one family": "Some students were dropped early; the pooled effect covers only the remaining ones.",
    "pooled first": "Some students were dropped early; the pooled effect includes the folds they were trained in.",
}


def confirmed_cells(found: Confirmation) -> Rows:
    """Each student's Dice, what the search had promised, and the effect of distillation; the teacher comes last."""
    head = ("student", "params", "Dice % [95 %]", "search", "search was too high by", "effect [95 %]", "distillation")
    effects = {effect.member: effect for effect in found.effects}
    rows = [_confirmed_row(arm, effects.get(arm.id)) for arm in found.arms if arm.role != "twin"]
    teacher = found.teacher
    last = (teacher.name, format_quantity(teacher.params) if teacher.params else "?", str(teacher.dice), "", "", "", "")
    return [head, *rows, last]


def _confirmed_row(arm: ArmAnswer, effect: Effect | None) -> tuple[str, ...]:
    searched = None if arm.selection_bias is None else arm.dice_at_size + arm.selection_bias
    verdict = "no teacher" if arm.path == "none" else ""
    return (
        arm.name,
        format_quantity(arm.params),
        str(arm.dice),
        "" if searched is None else f"{100 * searched:.1f}",
        "" if arm.selection_bias is None else f"{100 * arm.selection_bias:+z.1f}",
        "" if effect is None else str(effect.difference),
        verdict if effect is None else effect.verdict,
    )


def detail_cells(found: Confirmation) -> Rows:
    """Other scores of each network, explained by ``DETAILS``."""
    head = ("student", "NSD", "HD95", "hit", "missed (n)", "Dice < 50 %", "false alarms", "small", "vs teacher [95 %]")
    return [head, *(_detail_row(arm) for arm in (*found.arms, found.teacher))]


def _detail_row(arm: ArmAnswer) -> tuple[str, ...]:
    smallest = next(part for part in arm.parts if part.of == "smallest third")
    return (
        arm.name,
        f"{100 * arm.nsd:.1f}",
        f"{100 * arm.hd95:.1f}",
        f"{100 * arm.found:.1f}",
        f"{arm.missed:.1f}",
        f"{100 * arm.below_half:.1f}",
        "" if arm.false_positives is None else f"{100 * arm.false_positives:.1f}",
        f"{100 * smallest.dice.mean:.1f}",
        "" if arm.minus_teacher is None else str(arm.minus_teacher),
    )


def part_cells(found: Confirmation) -> Rows:
    """Dice of front students and teacher by class, source, label and size of the lesion."""
    arms: Sequence[ArmAnswer] = (*found.members, found.teacher)
    head = ("images of", "n", *(arm.name for arm in arms))
    rows = (
        (part.of, str(part.images), *(str(arm.parts[place].dice) for arm in arms))
        for place, part in enumerate(found.teacher.parts)
    )
    return [head, *rows]


def sentences(found: Confirmation) -> list[str]:
    """What the tables amount to."""
    lines = [_basis(found), *(f"Warning: {warning}." for warning in found.warnings)]
    if found.testing == "one family":
        lines.append(EARLIER_RULE)
    if (pooled := found.pooled) is not None:
        interval = _interval(Estimate(mean=pooled.mean, low=pooled.low, high=pooled.high))
        verdict = verdict_of(pooled)
        lines.append(f"Effect of distillation over all pairs: {interval}: {verdict}.")
    if any(effect.exploratory for effect in found.effects):
        lines.append(EXPLORATORY)
    if found.front_gain is not None:
        lines.append(
            "Best distilled minus best undistilled student, averaged over model sizes (log scale): "
            f"{_interval(found.front_gain)}; this interval covers new images, not new trainings."
        )
    if any(reason != "its member was dropped" and "behind" in reason for _, reason in found.left_out):
        lines.append(DROPPED[found.testing])
    lines += [warning] if (warning := confirmed_no_better(found)) else []
    lines += _as_good(found)
    lines += [f"{name} has no result: {reason}." for name, reason in _left_out(found)]
    return lines


def _interval(points: Estimate) -> str:
    """``+0.3 Dice points (95 % CI -2.4 to +3.0)``."""
    mean, low, high = (f"{100 * value:+z.1f}" for value in (points.mean, points.low, points.high))
    return f"{mean} Dice points (95 % CI {low} to {high})"


def _basis(found: Confirmation) -> str:
    images = f"with a lesion in {found.groups} groups"
    fixed = f"plan {found.plan}, fixed {found.sealed}"
    if found.kind == "test":
        used = "" if found.number == 1 else f" The test set has been used {found.number} times."
        return (
            f"{found.images} locked test images {images}, scored by networks trained on all other images with "
            f"{found.repetitions} seeds; {fixed}.{used}"
        )
    folds = "sources, each left out once" if found.by_source else "folds"
    times = f"{found.repetitions} repetition{'s' * (found.repetitions > 1)}"
    pilot = "" if found.repetitions > 2 else " This is a pilot; for publishable claims, use --repetitions 3."
    again = "" if found.number == 1 else f" This is plan {found.number} of the study; the earlier plans count as looks."
    return f"{found.images} images {images}, {found.folds} {folds}, {times}; {fixed}.{pilot}{again}"


def _as_good(found: Confirmation) -> list[str]:
    shown = [one for one in found.as_good if one.difference.shown]
    margin = f"{100 * found.margin:g} Dice points"
    if not found.as_good:
        return []
    names = {arm.id: arm.name for arm in found.arms}
    if not shown:
        larger = "a larger one" if found.testing == "one family" else names[found.as_good[0].larger]
        return [f"None of the smaller students is shown to stay within {margin} of {larger}."]
    return [
        f"{names[one.smaller].capitalize()} stays within {margin} of {names[one.larger]}: {one.difference} points."
        for one in shown
    ]


def _left_out(found: Confirmation) -> list[tuple[str, str]]:
    return [
        (f"The twin of trial {arm.removesuffix('-twin')}" if arm.endswith("-twin") else f"Trial {arm}", reason)
        for arm, reason in found.left_out
    ]


def answer_tables(found: Confirmation) -> list[Table]:
    """For a terminal of 80 columns: without the search's scores, and parts without intervals."""
    title = "On the locked test images" if found.kind == "test" else "Cross-validated"
    parts = [tuple(cell.partition(" [")[0] for cell in (row[0], *row[2:])) for row in part_cells(found)]
    confirmed = [row[:3] + row[4:] for row in confirmed_cells(found)]
    return [
        cells_table(confirmed, title=f"{title}, at original resolution"),
        cells_table(detail_cells(found), title="Other scores", caption=DETAILS),
        cells_table(parts, title="Dice % by class, source, label and size"),
    ]


def cells_table(cells: Rows, *, title: str, caption: str | None = None) -> Table:
    """For the terminal."""
    head, *rows = cells
    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1 if len(head) <= 6 else 0, 0, 0),
    )
    for name in head:
        words = name in WORDS
        table.add_column(IN_TWO_LINES.get(name, name), justify="left" if words else "right", no_wrap=not words)
    for row in rows:
        table.add_row(*row)
    return table


def confirmation_markdown(found: Confirmation) -> str:
    """Sentences and tables in Markdown."""
    tables = [markdown_table(head, rows) for head, *rows in (confirmed_cells(found), detail_cells(found))]
    return "\n\n".join([*sentences(found), *tables])
