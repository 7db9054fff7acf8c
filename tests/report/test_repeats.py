"""Means, spreads and p-values over repeats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from kdsearch.report.repeats import Repeat, averaged, variants_latex, variants_markdown, variants_of, verdict
from tests.front.students import student

RNG = np.random.default_rng(0)


def _repeat(seed):
    """A teacher at 0.8, an undistilled student at 0.6, and a distilled one that is 0.1 better on each image."""
    plain = 0.6 + 0.2 * np.random.default_rng(seed).standard_normal(20)
    made = [student(0, 0.6, 800, path="none"), student(1, 0.7, 800)]
    made = [dataclasses.replace(one, recipe=one.recipe.model_copy(update={"seed": seed})) for one in made]
    noise = 0.01 * np.random.default_rng(seed + 9).standard_normal(20)
    dice = {0: plain, 1: plain + 0.1 + noise}
    return _repeat_of(made, dice, plain + 0.2 + noise[::-1], seed=seed, part="test")


def _repeat_of(students, dice, teacher, *, seed=0, part="validation"):
    """Half of its images are scored in every repeat."""
    count = len(teacher)
    names = tuple(f"image {place}" if place < count // 2 else f"image {place} of {seed}" for place in range(count))
    return Repeat(
        students=tuple(students),
        part=part,
        images=names,
        groups=names,
        test_to_train=0.2,
        dice=dice,
        teacher=teacher,
        teacher_params=80_000,
    )


REPEATS = [_repeat(seed) for seed in range(3)]


def test_variants_ignore_seeds():
    teacher, plain, distilled = variants_of(REPEATS)
    assert (teacher.name, plain.name, distilled.name) == ("teacher", "no teacher", "logits kld weak")
    assert [row.repeats for row in (teacher, plain, distilled)] == [3, 3, 3]
    assert (teacher.params, plain.params) == (80_000, 800)
    images = np.concatenate([repeat.dice[1] for repeat in REPEATS])
    assert distilled.dice == pytest.approx(images.mean())
    assert distilled.image_std == pytest.approx(images.std())
    assert distilled.repeat_std == pytest.approx(np.std([repeat.dice[1].mean() for repeat in REPEATS], ddof=1))


def test_p_is_from_the_corrected_t_test_if_that_is_larger():
    """Nadeau and Bengio: the variance of R repeat means is multiplied by 1/R + n_test/n_train."""
    shifts = zip(REPEATS, (0.1, -0.2, 0.2), strict=True)
    uneven = [dataclasses.replace(one, dice=one.dice | {1: one.dice[1] + over}) for one, over in shifts]
    teacher, plain, distilled = variants_of(uneven)
    means = np.array([(repeat.dice[1] - repeat.dice[0]).mean() for repeat in uneven])
    t = distilled.over_plain / np.sqrt(means.var(ddof=1) * (1 / 3 + 0.2))
    assert distilled.p_plain == pytest.approx(2 * stats.t.sf(abs(t), 2))
    assert plain.p_plain is None
    assert plain.p_teacher == teacher.p_plain
    assert teacher.p_teacher is None


def test_image_that_scores_in_several_repeats_counts_once():
    _, _, distilled = variants_of(REPEATS)
    once = {}
    for repeat in REPEATS:
        for image, value in zip(repeat.images, repeat.dice[1] - repeat.dice[0], strict=True):
            once.setdefault(image, []).append(value)
    assert len(once) == 10 + 3 * 10
    assert distilled.over_plain == pytest.approx(np.mean([np.mean(values) for values in once.values()]))


def test_single_repeat_has_no_p():
    _, plain, distilled = variants_of(REPEATS[:1])
    assert (plain.p_teacher, distilled.p_plain, distilled.p_teacher) == (None, None, None)
    assert distilled.over_plain == pytest.approx(0.1, abs=0.01)


def _study_of_equal_recipes(seed, repeats=5):
    """Two recipes that differ only by training noise, in the mean and per image, as measured for small students."""
    rng = np.random.default_rng(seed)
    found = []
    for place in range(repeats):
        image = 0.6 + 0.2 * rng.standard_normal(97)
        noisy = [image + 0.012 * rng.standard_normal() + 0.1 * rng.standard_normal(97) for _ in range(2)]
        made = (student(0, 0.6, 800, path="none"), student(1, 0.6, 800))
        found.append(_repeat_of(made, {0: noisy[0], 1: noisy[1]}, image, seed=place))
    return found


@pytest.mark.parametrize("studies", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_equal_recipes_seldom_get_a_verdict(studies):
    """Pooling the images of all repeats gave a verdict in 9 to 26 % of studies."""
    texts = [verdict(variants_of(_study_of_equal_recipes(seed))) for seed in range(studies)]
    assert sum("inconclusive: 1" not in text for text in texts) <= max(1, 0.05 * studies)


def test_variant_average_skips_repeats_that_lack_the_variant():
    short = dataclasses.replace(REPEATS[2], students=REPEATS[2].students[:1])
    _, plain, distilled = variants_of([*REPEATS[:2], short])
    assert (plain.repeats, distilled.repeats) == (3, 2)


def test_averaged_students_carry_the_mean_of_their_repeats():
    timed = dataclasses.replace(student(0, 0.9, 800).scores, latency_ms=4.0)
    other = [dataclasses.replace(one, scores=timed) for one in REPEATS[1].students]
    plain, distilled = averaged([REPEATS[0], dataclasses.replace(REPEATS[1], students=tuple(other))])
    assert (plain.number, distilled.number) == (0, 1)
    for number, made in ((0, plain), (1, distilled)):
        means = [repeat.dice[number].mean() for repeat in REPEATS[:2]]
        assert made.scores.dice == pytest.approx(np.mean(means)), "the mean over the scored images"
        assert made.scores.latency_ms == 4.0


def test_tables_hold_every_variant():
    rows = variants_of(REPEATS)
    assert "| logits kld weak |" in variants_markdown(rows)
    assert "logits kld weak &" in variants_latex(rows)


def _five_repeats(students, apart):
    """Students that beat the undistilled student 0 by these differences, on 60 images in each of five repeats."""
    found = []
    for seed in range(5):
        plain = 0.6 + 0.2 * np.random.default_rng(seed).standard_normal(60)
        dice = {0: plain} | {number: plain + over + _noise(10 * seed + number) for number, over in apart.items()}
        found.append(_repeat_of(students, dice, plain, seed=seed))
    return found


def test_verdict_names_significant_variants_and_counts_the_rest():
    apart = {1: 0.1, 2: -0.1, 3: 0.0, 4: 0.0}
    students = [student(0, 0.6, 800, path="none"), *(_weighted(number) for number in apart)]
    rows = variants_of(_five_repeats(students, apart))
    text = verdict(rows)
    assert "adjusted for 4 comparisons (Holm, 95%)" in text
    better, worse = (f"logits kld weak, weight {weight}" for weight in (0.1, 0.2))
    assert f"better: {better} (+10.0 points); worse: {worse} (-9.9 points); inconclusive: 2." in text
    assert verdict(rows[:2]) == "", "there is nothing to compare"


def test_fewer_than_five_repeats_give_no_verdict():
    text = verdict(variants_of(REPEATS))
    assert text == "3 repeats: too few for a verdict on distillation, which needs 5 (set repeats: 5 in the study file)."


def test_recipe_is_compared_only_with_its_own_twin():
    """A wide distilled student does not beat a narrow undistilled one because of distillation."""
    narrow, wide = (0.5 + 0.2 * np.random.default_rng(5).standard_normal(60) + over for over in (0.0, 0.2))
    made = {0: (8, "none"), 1: (16, "none"), 2: (16, "logits"), 3: (24, "logits")}
    students = []
    for number, (width, path) in made.items():
        one = student(number, 0.6, 800, path=path)
        spec = one.recipe.student.model_copy(update={"width": width})
        recipe = one.recipe.model_copy(update={"student": spec, "seed": 0})
        students.append(dataclasses.replace(one, recipe=recipe))
    dice = {0: narrow, 1: wide, 2: wide + _noise(2), 3: wide + 0.1}
    rows = variants_of([_repeat_of(students, dice, wide)])
    by_name = {row.name: row for row in rows}
    assert by_name["logits kld weak, width 16"].over_plain == pytest.approx(0.0, abs=1e-9)
    assert by_name["logits kld weak, width 24"].p_plain is None, "there is no undistilled student of its width"
    assert by_name["teacher"].p_plain is None, "there are two"


def _noise(seed):
    noise = np.random.default_rng(seed).standard_normal(60)
    return 0.01 * (noise - noise.mean()) / noise.std()


def _weighted(number):
    one = student(number, 0.6, 800)
    term = one.recipe.distillation.terms[0].model_copy(update={"weight": number / 10})
    distillation = one.recipe.distillation.model_copy(update={"terms": (term,)})
    return dataclasses.replace(one, recipe=one.recipe.model_copy(update={"distillation": distillation}))
