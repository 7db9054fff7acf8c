"""Computes a confirmation's answers from its results: cross-validated scores, and whether distillation helped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from kdsearch.confirm.plan import Arm, Pair, Plan
from kdsearch.confirm.store import TEACHER, ConfirmStore, FoldResult, ScoredImages
from kdsearch.front.dominance import mean_best_by_size
from kdsearch.statistics.comparisons import (
    Compared,
    PairedDice,
    compare,
    compare_to_margin,
    image_interval,
    mean_known,
    pair_of,
)
from kdsearch.statistics.confirmation import ArmAnswer, AsGood, Confirmation, Effect, Estimate, Part, Testing
from kdsearch.statistics.resampling import LEVEL, draw_means, sums_by_group
from kdsearch.trials.scores import Scores

Floats = npt.NDArray[np.float64]
Measure = Literal["dice", "dice_at_size", "nsd", "hd95", "marked"]
"""``dice``, ``nsd`` and ``hd95`` are at original resolution; ``marked`` is 1 if the prediction is not empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTable:
    """The cross-validated measures of one arm."""

    values: Mapping[Measure, Floats]
    """R×N for each measure; Dice and distances are NaN for negative images."""
    by_class: Mapping[str, Floats]
    """R×N Dice of each class, NaN for images without it; empty if there is only one class."""

    def over_images(self, measure: Measure) -> Floats:
        """Averages a measure over repetitions; returns N values."""
        return np.asarray(self.values[measure].mean(axis=0))


def table_of(images: ScoredImages, scores: Mapping[tuple[int, int], Scores]) -> ArmTable:
    """Builds an arm's table from its scores by repetition and fold; NaN for images of folds without scores."""
    values: dict[Measure, Floats] = {
        name: np.full((len(images.folds), len(images.groups)), math.nan)
        for name in ("dice", "dice_at_size", "nsd", "hd95", "marked")
    }
    by_class: dict[str, Floats] = {}
    for (repetition, fold), found in scores.items():
        here = np.asarray(images.folds[repetition]) == fold
        assert found.per_image is not None, "a confirmation scores each image"
        assert found.native is not None, "a confirmation scores at original resolution"
        values["dice"][repetition, here] = found.native.dice
        values["nsd"][repetition, here] = found.native.nsd
        values["hd95"][repetition, here] = found.native.hd95
        values["dice_at_size"][repetition, here] = found.per_image.dice
        values["marked"][repetition, here] = 1.0 - np.array(found.per_image.empty)
        for one, column in zip(found.overlap.classes, found.native.by_class, strict=True):
            by_class.setdefault(one.name, np.full_like(values["dice"], math.nan))[repetition, here] = column
    return ArmTable(values=values, by_class=by_class)


def paired(images: ScoredImages, arm: ArmTable, other: ArmTable, *, testing: Testing) -> PairedDice:
    """Pairs the arm's Dice with the other's: arm minus other."""
    return paired_rows(images, arm.values["dice"] - other.values["dice"], testing=testing)


def paired_rows(images: ScoredImages, rows: Floats, *, testing: Testing) -> PairedDice:
    """Builds paired differences from R×N rows, NaN for negative images and for folds without scores.

    In a test, a single fold contains all images and its repetitions are seeds, as ``pooled first`` assumes.
    """
    seeds = testing == "pooled first"
    return pair_of(rows, np.asarray(images.folds), test_to_train=images.test_to_train, same_images=seeds)


HALF = 0.5
BEYOND = 10**0.5
"""Fronts are compared up to this factor (about 3) beyond the largest distilled student, so that it counts."""


def answers_of(store: ConfirmStore) -> Confirmation:
    """Computes the answers of a finished plan."""
    return answer(
        store.plan,
        store.images(),
        store.results(),
        sealed=store.sealed,
        number=store.number,
        dropped=store.dropped(),
    )


def answer(
    plan: Plan,
    images: ScoredImages,
    results: Mapping[tuple[str, int, int], FoldResult],
    *,
    sealed: str,
    number: int,
    dropped: Mapping[str, str],
) -> Confirmation:
    """Computes the answers for the arms that were scored in every fold."""
    groups = images.groups
    tables, left_out = _tables(plan, images, results, dropped)
    arms = [arm for arm in plan.arms if arm.id in tables]
    scores = {name: _first_scores(results, name) for name in tables}
    to_teacher = compare(
        [paired(images, tables[arm.id], tables[TEACHER], testing=plan.testing) for arm in arms], groups
    )
    twins = [pair for pair in plan.twins if {pair.arm, pair.other} <= tables.keys()]
    pooled, effects = _effects(plan, images, twins, tables, _unfinished(images, results, dropped))
    lesions = ~np.isnan(tables[TEACHER].values["dice"][0])
    return Confirmation(
        kind=plan.kind,
        study=plan.study,
        plan=plan.digest,
        sealed=sealed,
        number=number,
        folds=len(plan.partitions[0]),
        repetitions=len(plan.partitions),
        by_source=plan.settings.leave_one_source_out,
        images=int(lesions.sum()),
        groups=len({group for group, lesion in zip(groups, lesions, strict=True) if lesion}),
        margin=plan.settings.margin,
        arms=tuple(
            _arm_answer(arm, tables[arm.id], images, scores[arm.id], difference)
            for arm, difference in zip(arms, to_teacher, strict=True)
        ),
        teacher=_arm_answer(None, tables[TEACHER], images, scores[TEACHER], None),
        effects=effects,
        pooled=pooled,
        front_gain=_front_gain(plan, twins, tables, groups) if len(twins) > 1 else None,
        as_good=_as_good(plan, images, tables),
        left_out=tuple(left_out.items()),
        warnings=plan.warnings,
        testing=plan.testing,
    )


def _effects(
    plan: Plan,
    images: ScoredImages,
    twins: Sequence[Pair],
    tables: Mapping[str, ArmTable],
    unfinished: Mapping[str, ArmTable],
) -> tuple[Compared | None, tuple[Effect, ...]]:
    """Tests the pooled effect of distillation and the effect of each pair, in the plan's order."""
    pairs = [paired(images, tables[pair.arm], tables[pair.other], testing=plan.testing) for pair in twins]
    if plan.testing == "one family":
        if not twins:
            return None, ()
        pairs.append(paired_rows(images, _mean_difference(twins, tables), testing=plan.testing))
        *each, together = compare(pairs, images.groups)
        return together, _as_effects(twins, each, exploratory=False)
    known = {**tables, **unfinished}
    pooling = [pair for pair in plan.twins if {pair.arm, pair.other} <= known.keys()]
    if not pooling:
        return None, ()
    rows = _mean_difference(pooling, known)
    (first,) = compare([paired_rows(images, rows, testing=plan.testing)], images.groups)
    if first.shown:
        return first, _as_effects(twins, compare(pairs, images.groups), exploratory=False)
    separately = [compare([pair], images.groups)[0] for pair in pairs]
    return first, _as_effects(twins, separately, exploratory=True)


def _as_effects(twins: Sequence[Pair], found: Sequence[Compared], *, exploratory: bool) -> tuple[Effect, ...]:
    return tuple(
        Effect(member=pair.arm, twin=pair.other, difference=difference, exploratory=exploratory)
        for pair, difference in zip(twins, found, strict=True)
    )


def _as_good(plan: Plan, images: ScoredImages, tables: Mapping[str, ArmTable]) -> tuple[AsGood, ...]:
    """Compares smaller members with larger ones that have tables; ``pooled first`` uses only the largest, in order."""
    pairs = [pair for pair in plan.not_worse if {pair.arm, pair.other} <= tables.keys()]
    if plan.testing == "pooled first":
        names = [arm.id for arm in plan.members if arm.id in tables]
        pairs = [Pair(arm=smaller, other=names[-1]) for smaller in reversed(names[:-1])]
    differences = [paired(images, tables[pair.arm], tables[pair.other], testing=plan.testing) for pair in pairs]
    in_order = plan.testing == "pooled first"
    compared = compare_to_margin(differences, images.groups, margin=plan.settings.margin, in_order=in_order)
    return tuple(
        AsGood(smaller=pair.arm, larger=pair.other, difference=difference)
        for pair, difference in zip(pairs, compared, strict=True)
    )


def _tables(
    plan: Plan,
    images: ScoredImages,
    results: Mapping[tuple[str, int, int], FoldResult],
    dropped: Mapping[str, str],
) -> tuple[dict[str, ArmTable], dict[str, str]]:
    """Tables of the complete arms and the teacher, and the reasons why others have none."""
    tables, left_out = {}, dict(dropped)
    places = [(repetition, fold) for repetition, folds in enumerate(plan.partitions) for fold in range(len(folds))]
    for name in (TEACHER, *(arm.id for arm in plan.arms)):
        found = [results.get((name, *place)) for place in places]
        failed = next((one for one in found if one is not None and one.scores is None), None)
        if failed is not None:
            left_out[name] = f"failed in fold {failed.fold + 1}: {failed.reason}"
        if name in left_out:
            continue
        scores = {place: one.scores for place, one in zip(places, found, strict=True) if one is not None and one.scores}
        assert len(scores) == len(places), "the plan is finished"
        tables[name] = table_of(images, scores)
    return tables, left_out


def _unfinished(
    images: ScoredImages, results: Mapping[tuple[str, int, int], FoldResult], dropped: Mapping[str, str]
) -> dict[str, ArmTable]:
    """Tables of the arms that racing dropped, with their scores until then."""
    scores: dict[str, dict[tuple[int, int], Scores]] = {}
    for (arm, repetition, fold), found in results.items():
        if arm in dropped and found.scores is not None:
            scores.setdefault(arm, {})[repetition, fold] = found.scores
    return {arm: table_of(images, found) for arm, found in scores.items()}


def _first_scores(results: Mapping[tuple[str, int, int], FoldResult], name: str) -> Scores:
    scores = results[name, 0, 0].scores
    assert scores is not None, "arms with a table have scores"
    return scores


def _mean_difference(pairs: Sequence[Pair], tables: Mapping[str, ArmTable]) -> Floats:
    """R×N distilled minus undistilled Dice, averaged over the pairs in which both have scored the image."""
    rows = [tables[pair.arm].values["dice"] - tables[pair.other].values["dice"] for pair in pairs]
    return mean_known(np.stack(rows))


def _arm_answer(
    arm: Arm | None, table: ArmTable, images: ScoredImages, scores: Scores, minus_teacher: Compared | None
) -> ArmAnswer:
    dice = table.over_images("dice")
    lesions = ~np.isnan(dice)
    at_size = float(np.nanmean(table.values["dice_at_size"]))
    empty = table.values["marked"][:, ~lesions]
    each = table.values["dice"][:, lesions]
    return ArmAnswer(
        id=TEACHER if arm is None else arm.id,
        name=TEACHER if arm is None else arm.name,
        role="teacher" if arm is None else arm.role,
        trial=None if arm is None else arm.trial,
        path="none" if arm is None or arm.recipe.distillation is None else arm.recipe.distillation.summary(),
        params=scores.params if arm is None else arm.params,
        macs=scores.macs if arm is None else arm.macs,
        dice=_estimate(dice, images.groups),
        dice_at_size=at_size,
        selection_bias=None if arm is None or arm.role == "twin" or arm.searched is None else arm.searched - at_size,
        std_images=float(dice[lesions].std()),
        std_runs=float(each.mean(axis=1).std(ddof=1)) if len(each) > 1 else None,
        nsd=float(np.nanmean(table.values["nsd"])),
        hd95=float(np.nanmean(table.values["hd95"])),
        missed=float((table.values["hd95"][:, lesions] == 1).sum(axis=1).mean()),
        found=float((each > 0).mean()),
        below_half=float((each < HALF).mean()),
        false_positives=float(empty.mean()) if empty.size else None,
        parts=(*_classes(table, images), *_parts(dice, images)),
        minus_teacher=minus_teacher,
    )


def _classes(table: ArmTable, images: ScoredImages) -> tuple[Part, ...]:
    """Dice of each class, over the images in whose mask or prediction it is in some repetition."""
    found = []
    for name, rows in table.by_class.items():
        dice = mean_known(rows)
        if (known := ~np.isnan(dice)).any():
            found.append(Part(of=f"class {name}", images=int(known.sum()), dice=_estimate(dice, images.groups)))
    return tuple(found)


def _parts(dice: Floats, images: ScoredImages) -> tuple[Part, ...]:
    """Dice by source and by label, if there are several, and of the third of images with the smallest lesions."""
    found = []
    for what, names in (("source", images.sources), ("label", images.labels)):
        with_lesion = {name for name, value in zip(names, dice, strict=True) if name and not np.isnan(value)}
        if len(with_lesion) > 1:
            found += [(f"{what} {name}", np.array(names) == name) for name in sorted(with_lesion)]
    area = np.array(images.lesion_fraction)
    lesions = ~np.isnan(dice)
    found.append(("smallest third", lesions & (area <= np.quantile(area[lesions], 1 / 3))))
    return tuple(
        Part(
            of=name,
            images=int((here & lesions).sum()),
            dice=_estimate(np.where(here, dice, np.nan), images.groups),
        )
        for name, here in found
    )


def _estimate(dice: Floats, groups: Sequence[str]) -> Estimate:
    low, high = image_interval(dice, groups, alpha=1 - LEVEL)
    return Estimate(mean=float(np.nanmean(dice)), low=low, high=high)


def _front_gain(plan: Plan, twins: Sequence[Pair], tables: Mapping[str, ArmTable], groups: Sequence[str]) -> Estimate:
    """Compares distilled members with undistilled arms, with an interval from a bootstrap over groups."""
    distilled = [plan.arm(name) for name in dict.fromkeys(pair.arm for pair in twins)]
    undistilled = [arm for arm in plan.arms if arm.recipe.distillation is None and arm.id in tables]

    least, most = distilled[0].params, int(BEYOND * distilled[-1].params)

    def covered(arms: Sequence[Arm]) -> Floats:
        """The mean best Dice over sizes: of all images, then of each bootstrap draw."""
        sums, counts = sums_by_group(np.stack([tables[arm.id].over_images("dice") for arm in arms]), groups)
        dice = np.column_stack([sums.sum(axis=1) / counts.sum(), draw_means(sums, counts)])
        return mean_best_by_size(np.array([arm.params for arm in arms]), dice, least=least, most=most)

    gain = covered(distilled) - covered([arm for arm in undistilled if arm.params < most])
    low, high = np.quantile(gain[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean=float(gain[0]), low=float(low), high=float(high))
