"""From a study's students and what was typed to the one that is picked, and to the words that say why."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsearch.config.home import weights_path
from kdsearch.distill.record import Student
from kdsearch.errors import KdsearchError, nearest
from kdsearch.export.folder import Workbench, load_weights
from kdsearch.export.sizes import measure_onnx
from kdsearch.front.choice import Budget, Candidate, Rule
from kdsearch.front.noise import Difference, paired_difference
from kdsearch.search.pictures import Pictures

SHOWN_RIVALS = 5
"""How many of those that the rule places next are compared with the chosen one, image by image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """A study's finished students, and what they are looked at with."""

    students: tuple[Student, ...]
    bench: Workbench
    pictures: Pictures
    home: Path

    def find(self, number: int) -> Student:
        """The student of that trial; raises KdsearchError where there is none."""
        found = next((student for student in self.students if student.number == number), None)
        if found is None:
            hint = nearest(str(number), (str(student.number) for student in self.students))
            raise KdsearchError(f"--trial {number}: the study has no finished student of that number{hint}")
        return found

    def weights_of(self, student: Student) -> Path:
        """The file of the student's weights."""
        return weights_path(self.home, self.bench.study.name, student.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A student that the rule places after the chosen one."""

    candidate: Candidate
    behind: Difference
    """Of Dice, chosen minus rival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was picked and what nearly was."""

    candidate: Candidate
    sentence: str
    rivals: tuple[Rival, ...]

    @property
    def caution(self) -> str:
        """Says where the runner-up is as good as far as anybody can tell; empty where it is not."""
        if not self.rivals or not self.rivals[0].behind.within_noise:
            return ""
        rival = self.rivals[0]
        points = f"{100 * rival.behind.mean:+.1f} ± {100 * rival.behind.half_width:.1f} points of Dice (paired, 95 %)"
        return (
            f"The runner-up, trial {rival.candidate.student.number}, cannot be told apart from it by these images: the "
            f"difference is {points}."
        )


def rule_of(options: argparse.Namespace) -> Rule:
    """The rule that was typed."""
    if options.smallest_within is not None:
        return Rule(name="smallest-within", tolerance=options.smallest_within)
    return Rule(name="knee" if options.knee else "best")


def budget_of(options: argparse.Namespace) -> Budget:
    """The budget that was typed."""
    return Budget(
        params=options.params,
        macs=options.macs,
        latency_ms=options.latency,
        file_bytes=options.file_size,
        min_dice=options.min_dice,
    )


def candidates_of(
    gallery: Gallery, students: Sequence[Student], *, budget: Budget, say: Callable[[str], None]
) -> list[Candidate]:
    """The students; where the budget asks for it, those that may be within it with their latency and file size."""
    plain = [Candidate(student=student) for student in students]
    possible = [entry for entry in plain if budget.without_measures().excess(entry) <= 0]
    if not budget.needs_measuring or not possible:
        return plain
    say(f"measuring {len(possible)} students on this machine")
    return [_measured(gallery, entry.student) for entry in possible]


def choose(gallery: Gallery, candidates: Sequence[Candidate], *, budget: Budget, rule: Rule) -> Choice | None:
    """The rule's choice among the candidates within the budget; None where none is."""
    within = [entry for entry in candidates if budget.excess(entry) <= 0]
    ranked = rule.rank(within)
    if not ranked:
        return None
    sentence = rule.explain(ranked[0], count=len(within), budget=budget)
    return Choice(candidate=ranked[0], sentence=sentence, rivals=_rivals(gallery, ranked[0], ranked[1:]))


def as_asked_for(gallery: Gallery, chosen: Candidate) -> Choice:
    """The choice of a person: its rivals are the best of all students."""
    others = [Candidate(student=student) for student in gallery.students if student.number != chosen.student.number]
    sentence = f"Trial {chosen.student.number}, as asked for: {chosen.student.scores.headline()}."
    return Choice(candidate=chosen, sentence=sentence, rivals=_rivals(gallery, chosen, Rule().rank(others)))


def _rivals(gallery: Gallery, chosen: Candidate, others: Iterable[Candidate]) -> tuple[Rival, ...]:
    pictures = gallery.pictures
    own = pictures.dice(chosen.student)
    here = [other for other in others if pictures.has_weights(other.student)]
    return tuple(
        Rival(candidate=other, behind=paired_difference(own, pictures.dice(other.student)))
        for other in here[:SHOWN_RIVALS]
    )


def _measured(gallery: Gallery, student: Student) -> Candidate:
    network = load_weights(student, gallery.weights_of(student))
    file_bytes, latency = measure_onnx(network, size=gallery.bench.study.data.size)
    return Candidate(student=student, file_bytes=file_bytes, latency_ms=latency.median_ms)
