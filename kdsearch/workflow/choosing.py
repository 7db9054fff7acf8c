"""Chooses a student by a budget and a rule, and explains the choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import Splits
from kdsearch.distill.materials import Materials
from kdsearch.errors import KdsearchError, nearest
from kdsearch.export.folder import load_weights
from kdsearch.export.onnx_graph import measure_onnx
from kdsearch.files.home import weights_path
from kdsearch.front.rules import Budget, Candidate, Rule
from kdsearch.search.pictures import Pictures
from kdsearch.statistics.confirmation import Confirmation
from kdsearch.statistics.resampling import Difference, simultaneous_differences
from kdsearch.statistics.selection import Standing, Standings, selection_bias
from kdsearch.trials.record import Student
from kdsearch.trials.scores import ScoredOn
from kdsearch.workflow.confirmed import claim, explain_confirmed, rank_confirmed, tested_claim, with_confirmed_dice

INDISTINGUISHABLE = "statistically indistinguishable from it on these images"
NOT_CONFIRMED = "This is the search's score and therefore optimistic; kdsearch confirm gives an honest one."
SEED_SPREAD = (
    "Changing only the training seed moves a student's Dice by 1 to 2 points (standard deviation), and more for the "
    "smallest students."
)
LEAST_SELECTION_BIAS = 0.001
MOST_RESAMPLED = 40
"""How many of the best students the bootstrap of the selection bias chooses from."""
MOST_COMPARED = 20
"""How many students, those closest in Dice, are compared with the chosen one image by image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """A study's finished students within its limits, and what is needed to choose among them."""

    students: tuple[Student, ...]
    study: StudyConfig
    study_id: str
    complete: bool
    """Whether all trials of the study are done."""
    materials: Materials
    pictures: Pictures
    standings: Standings
    home: Path
    search_splits: Splits
    """The search's training, validation and locked test images."""
    confirmed: Confirmation | None = None
    """None if the study was not confirmed."""
    tested: Confirmation | None = None
    """The scores on the locked test images; None if they were not used."""
    test_openings: int = 0
    """How often those images were used."""
    scored_on: ScoredOn = "validation"
    """Which images the scores were measured on; ``test`` for a student that was trained on all others."""

    def find(self, number: int) -> Student:
        """The student of that trial; raises KdsearchError if there is none."""
        found = next((student for student in self.students if student.number == number), None)
        if found is None:
            hint = nearest(str(number), (str(student.number) for student in self.students))
            raise KdsearchError(
                f"trial {number}: the study has no finished student of that number within its limits{hint}"
            )
        return found

    def weights_of(self, student: Student) -> Path:
        """The file of the student's weights."""
        return weights_path(self.home, self.study.name, student.job)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Another student, compared with the chosen one image by image."""

    student: Student
    behind: Difference
    """Dice of the chosen student minus that of this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen student, the reason, and the alternatives."""

    candidate: Candidate
    sentence: str
    runner_up: Comparison | None
    """The rule's second choice; None if the trial was named, or no other student's Dice per image is known."""
    comparisons: tuple[Comparison, ...]
    """Smallest first."""
    selection_bias: float = 0.0
    """Selection bias of the best student within the budget, in Dice; 0 for other rules."""
    claim: str = ""
    """What is known from confirmation or test; empty if nothing is."""
    standing: Standing | None = None
    """Among all students of the study; None if unknown."""

    @property
    def as_good(self) -> tuple[Comparison, ...]:
        """Those statistically indistinguishable from the chosen student, smallest first."""
        return tuple(comparison for comparison in self.comparisons if comparison.behind.within_noise)

    @property
    def smaller_as_good(self) -> tuple[Comparison, ...]:
        """Those of ``as_good`` that have fewer parameters, smallest first."""
        params = self.candidate.student.scores.params
        return tuple(comparison for comparison in self.as_good if comparison.student.scores.params < params)

    @property
    def caveats(self) -> dict[str, str]:
        """What limits the claim that this student is the right one: sentences by label."""
        found = {"confirmed": self.claim or NOT_CONFIRMED}
        if self.selection_bias >= LEAST_SELECTION_BIAS:
            found["optimism"] = (
                f"Its Dice is about {100 * self.selection_bias:.1f} points too high because it is the best of many "
                "(bootstrap over groups of images)."
            )
        if self.standing is not None:
            often, corrected = f"{100 * self.standing.stability:.0f}", self.standing.corrected
            found["expected"] = (
                f"The best student up to this size is expected to reach {corrected} % Dice on new images. This one "
                f"stays on the front in {often} % of resamples of the validation images, which is not a probability."
            )
        if self.runner_up is not None and self.runner_up.behind.within_noise:
            found["runner-up"] = (
                f"Trial {self.runner_up.student.number} is {INDISTINGUISHABLE}: it is behind by "
                f"{self.runner_up.behind} Dice points (95 %, simultaneous over all comparisons)."
            )
        if smaller := self.smaller_as_good:
            least = smaller[0].student
            found["similar"] = (
                f"{len(smaller)} of {len(self.comparisons)} compared students {'is' if len(smaller) == 1 else 'are'} "
                f"smaller and {INDISTINGUISHABLE}; the smallest is trial {least.number}: {least.scores.headline()}."
            )
        if self.as_good:
            found["seed"] = SEED_SPREAD
        return found

    @property
    def caution(self) -> str:
        """The caveats as one paragraph."""
        return " ".join(self.caveats.values())


def candidates_of(
    known: Candidates, students: Sequence[Student], *, budget: Budget, say: Callable[[str], None]
) -> list[Candidate]:
    """The students, with latency and file size if the budget limits them; those are measured only if necessary."""
    plain = [Candidate(student=student) for student in students]
    possible = [entry for entry in plain if budget.without_measures().excess(entry) <= 0]
    if not budget.needs_measuring or not possible:
        return plain
    say(f"measuring {len(possible)} students on this machine")
    return [_measured(known, entry.student) for entry in possible]


def choose(known: Candidates, candidates: Sequence[Candidate], *, budget: Budget, rule: Rule) -> Choice | None:
    """The rule's choice among the candidates within the budget; None if there are none."""
    within = [entry for entry in candidates if budget.excess(entry) <= 0]
    ranked = rule.rank(within)
    if not ranked:
        return None
    chosen, others = ranked[0].student, [entry.student for entry in within]
    sentence = rule.explain(ranked, count=len(within), budget=budget)
    second = ranked[1].student.number if len(ranked) > 1 else None
    comparisons = _compared(known, chosen, others, always=second)
    runner_up = next((comparison for comparison in comparisons if comparison.student.number == second), None)
    return Choice(
        candidate=ranked[0],
        sentence=sentence,
        runner_up=runner_up,
        comparisons=comparisons,
        selection_bias=_flattery(known, [chosen, *others]) if rule.name == "best" else 0.0,
        standing=known.standings.get(chosen.number),
    )


def choose_confirmed(
    known: Candidates, candidates: Sequence[Candidate], *, budget: Budget, rule: Rule
) -> Choice | None:
    """The rule's choice among the confirmed students within the budget, by confirmed Dice; None if there are none."""
    found = known.confirmed
    if found is None:
        return None
    within = [entry for entry in with_confirmed_dice(candidates, found) if budget.excess(entry) <= 0]
    if not within:
        return None
    chosen = rank_confirmed(within, rule, found)[0]
    sentence = explain_confirmed(chosen, count=len(within), budget=budget, rule=rule, found=found)
    entry = next(entry for entry in candidates if entry.student.number == chosen.student.number)
    return Choice(
        candidate=entry, sentence=sentence, runner_up=None, comparisons=(), claim=claim_of(known, entry.student)
    )


def claim_of(known: Candidates, student: Student) -> str:
    """The student's confirmed score and its score on the locked test images; empty if there are none."""
    words = [
        say(member, found)
        for found, say in ((known.confirmed, claim), (known.tested, tested_claim))
        if found is not None and (member := found.member_of(student.number)) is not None
    ]
    return " ".join(words)


def as_asked_for(known: Candidates, chosen: Candidate) -> Choice:
    """Chooses the requested trial, and compares it with all students."""
    how = {
        "validation": "as requested",
        "test": f"trained on all but the locked images, with seed {chosen.student.recipe.seed} as planned",
    }
    sentence = f"Trial {chosen.student.number}, {how[known.scored_on]}: {chosen.student.scores.headline()}."
    comparisons = _compared(known, chosen.student, known.students)
    standing = known.standings.get(chosen.student.number)
    return Choice(
        candidate=chosen,
        sentence=sentence,
        runner_up=None,
        comparisons=comparisons,
        claim=claim_of(known, chosen.student),
        standing=standing,
    )


def _compared(
    known: Candidates, chosen: Student, others: Iterable[Student], *, always: int | None = None
) -> tuple[Comparison, ...]:
    """Compares the chosen student with those closest in Dice and that of trial ``always``; returns the smallest first.

    The intervals cover the choice among all of ``others``, not only among those compared.
    """
    here = [other for other in others if other.number != chosen.number and known.pictures.has_dice(other)]
    here.sort(key=lambda one: (one.number != always, abs(one.scores.dice - chosen.scores.dice)))
    if not here:
        return ()
    dice = [known.pictures.dice(student) for student in (chosen, *here)]
    places = range(1, len(dice))[:MOST_COMPARED]
    behind = simultaneous_differences(dice, known.pictures.groups, chosen=0, others=places)
    comparisons = [Comparison(student=other, behind=found) for other, found in zip(here, behind, strict=False)]
    return tuple(
        sorted(comparisons, key=lambda comparison: (comparison.student.scores.params, comparison.student.number))
    )


def _flattery(known: Candidates, students: Iterable[Student]) -> float:
    """Selection bias of the best student, among those whose Dice per image is known."""
    here = {student.number: student for student in students if known.pictures.has_dice(student)}
    best = sorted(here.values(), key=lambda student: -student.scores.dice)[:MOST_RESAMPLED]
    return selection_bias([known.pictures.dice(student) for student in best], known.pictures.groups) if best else 0.0


def _measured(known: Candidates, student: Student) -> Candidate:
    network = load_weights(student, known.weights_of(student), known.study.data.task)
    file_bytes, latency = measure_onnx(network, known.study.data.task)
    return Candidate(student=student, file_bytes=file_bytes, latency_ms=latency.median_ms)
