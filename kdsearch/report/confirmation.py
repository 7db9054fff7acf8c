"""A confirmation in tables and sentences: for the terminal, as Markdown, in the report and on the card."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kdsearch.config.quantity import format_quantity
from kdsearch.markdown import markdown_table
from kdsearch.report.teacher import confirmed_no_better
from kdsearch.statistics.confirmation import ArmAnswer, Confirmation, Effect, Testing, verdict_of

Rows = list[tuple[str, ...]]
"""The head, then a row each."""

DETAILS = (
    "%, but for missed: images. HD95 of the diagonal; found: lesions touched; <0.5: images under half Dice; false+: "
    "images without a lesion in which something is marked; small: Dice on the third with the smallest lesions"
)
"""What the columns of ``detail_cells`` mean."""
LEFT = ("student", "verdict", "of")
EARLIER_RULE = (
    "This plan was sealed under an earlier rule, which it keeps: the pooled effect of distillation and all pairs share "
    "one error rate (Holm), and every smaller member is compared with every larger one."
)
EXPLORATORY = (
    "The pooled effect is not shown, so the pairs are exploratory: each has a plain 95 % interval, without adjustment "
    "for the others, and no verdict."
)
DROPPED: dict[Testing, str] = {
    "one family": "Racing dropped members, so the pooled effect is that of the members that stayed.",
    "pooled first": "Racing dropped members; the pooled effect includes them in the folds that they were trained in.",
}


def confirmed_cells(found: Confirmation) -> Rows:
    """Each member with its Dice, what the search had promised, and what distillation gave."""
    head = ("student", "params", "Dice % [95 %]", "searched", "too high", "over its twin", "verdict")
    effects = {effect.member: effect for effect in found.effects}
    rows = [_confirmed_row(arm, effects.get(arm.id)) for arm in found.arms if arm.role != "twin"]
    teacher = found.teacher
    last = (teacher.name, format_quantity(teacher.params) if teacher.params else "?", str(teacher.dice), "", "", "", "")
    return [head, *rows, last]


def _confirmed_row(arm: ArmAnswer, effect: Effect | None) -> tuple[str, ...]:
    searched = None if arm.selection_bias is None else arm.dice_at_size + arm.selection_bias
    name = f"{arm.name}, plain" if arm.path == "none" else arm.name
    return (
        name,
        format_quantity(arm.params),
        str(arm.dice),
        "" if searched is None else f"{100 * searched:.1f}",
        "" if arm.selection_bias is None else f"{100 * arm.selection_bias:+z.1f}",
        "" if effect is None else str(effect.difference),
        "" if effect is None else effect.verdict,
    )


def detail_cells(found: Confirmation) -> Rows:
    """Each arm and the teacher by what else was measured; see ``DETAILS``."""
    head = ("student", "NSD", "HD95", "found", "missed", "<0.5", "false+", "small", "to teacher")
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
    """Dice of members and teacher by source, label and size of the lesion."""
    arms: Sequence[ArmAnswer] = (*found.members, found.teacher)
    head = ("of", "images", *(arm.name for arm in arms))
    rows = (
        (part.of, str(part.images), *(str(arm.parts[place].dice) for arm in arms))
        for place, part in enumerate(found.teacher.parts)
    )
    return [head, *rows]


def sentences(found: Confirmation) -> list[str]:
    """What the tables come to, in words."""
    lines = [_how(found), *(f"Mind: {warning}." for warning in found.warnings)]
    if found.testing == "one family":
        lines.append(EARLIER_RULE)
    if found.pooled is not None:
        verdict = verdict_of(found.pooled)
        lines.append(f"Distillation gave {found.pooled} points, all pairs together: {verdict}.")
    if any(effect.exploratory for effect in found.effects):
        lines.append(EXPLORATORY)
    if found.front_gain is not None:
        gain = found.front_gain
        lines.append(
            f"The distilled front is {100 * gain.mean:+z.1f} points [{100 * gain.low:+z.1f}, {100 * gain.high:+z.1f}] "
            "over the plain one, averaged over the logarithm of parameters; this interval covers other images only, "
            "not other trainings."
        )
    if any(reason != "its member was dropped" and "behind" in reason for _, reason in found.left_out):
        lines.append(DROPPED[found.testing])
    lines += [warning] if (warning := confirmed_no_better(found)) else []
    lines += _as_good(found)
    lines += [f"{found_name} has no answer: {reason}." for found_name, reason in _left_out(found)]
    return lines


def _how(found: Confirmation) -> str:
    if found.kind == "test":
        opened = "" if found.number == 1 else f" They were opened {found.number} times."
        return (
            f"{found.images} locked images with a lesion in {found.groups} groups, scored by networks trained on all "
            f"others with {found.repetitions} seeds; plan {found.plan}, sealed {found.sealed}.{opened}"
        )
    places = "sources, each left out once" if found.by_source else "folds"
    pilot = "" if found.repetitions > 2 else f"; a pilot, since {_times(found.repetitions)} is too few for a claim"
    again = "" if found.number == 1 else f" This is plan {found.number} of the study: the earlier ones count as looks."
    return (
        f"{found.images} images with a lesion in {found.groups} groups, {found.folds} {places}, "
        f"{_times(found.repetitions)}{pilot}; plan {found.plan}, sealed {found.sealed}.{again}"
    )


def _times(count: int) -> str:
    return f"{count} repetition{'s' * (count > 1)}"


def _as_good(found: Confirmation) -> list[str]:
    shown = [one for one in found.as_good if one.difference.shown]
    margin = f"{100 * found.margin:g} points"
    if not found.as_good:
        return []
    names = {arm.id: arm.name for arm in found.arms}
    if not shown:
        larger = "a larger one" if found.testing == "one family" else names[found.as_good[0].larger]
        return [f"No smaller student is shown to be no worse than {larger} by more than {margin}."]
    return [
        f"{names[one.smaller]} is no worse than {names[one.larger]} by more than {margin}: {one.difference} points."
        for one in shown
    ]


def _left_out(found: Confirmation) -> list[tuple[str, str]]:
    return [
        (f"The twin of trial {arm.removesuffix('-twin')}" if arm.endswith("-twin") else f"Trial {arm}", reason)
        for arm, reason in found.left_out
    ]


def answer_tables(found: Confirmation) -> list[Table]:
    """For a terminal of eighty columns: without what the search had said, and parts without intervals."""
    where = "on the locked test images" if found.kind == "test" else "out of fold"
    parts = [tuple(cell.partition(" [")[0] for cell in (row[0], *row[2:])) for row in part_cells(found)]
    confirmed = [row[:3] + row[4:] for row in confirmed_cells(found)]
    return [
        cells_table(confirmed, title=f"Confirmed {where}, at the size of the files"),
        cells_table(detail_cells(found), title="Beside Dice", caption=DETAILS),
        cells_table(parts, title="Dice % by part"),
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
        padding=(0, 0),
        pad_edge=False,
    )
    for name in head:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def confirmation_markdown(found: Confirmation) -> str:
    """Sentences and tables in Markdown."""
    tables = [markdown_table(head, rows) for head, *rows in (confirmed_cells(found), detail_cells(found))]
    return "\n\n".join([*sentences(found), *tables])
