"""From a study's students, a budget and a rule to the one that is picked, and to the words that say why."""

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

INDISTINGUISHABLE = "not distinguishable from it by these images and these weights"
NOT_CONFIRMED = "Its Dice is the search's own, which chose by it; kdsearch confirm says what it is worth."
SEED_SPREAD = (
    "Another training seed by itself moves a student's Dice by 1 to 2 points (standard deviation), and that of the "
    "smallest students by more."
)
LEAST_SELECTION_BIAS = 0.001
MOST_RESAMPLED = 40
"""How many students, the best, are chosen among again and again to see how much that flatters."""
MOST_COMPARED = 20
"""How many students, those nearest in Dice, are compared with the chosen one, image by image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """A study's finished students within its limits, and what they are looked at with."""

    students: tuple[Student, ...]
    study: StudyConfig
    study_id: str
    complete: bool
    """Whether the study has all the trials that its file asks for."""
    materials: Materials
    pictures: Pictures
    standings: Standings
    home: Path
    search_splits: Splits
    """The search's: what it trained on and chose by, and what is locked."""
    confirmed: Confirmation | None = None
    """What the study's confirmation found; None where it has none."""
    tested: Confirmation | None = None
    """What its locked test images said; None where nothing is known of that."""
    test_openings: int = 0
    """How often those were opened."""
    scored_on: ScoredOn = "validation"
    """Which images the students' scores are of; ``test`` for one that was trained on all others."""

    def find(self, number: int) -> Student:
        """The student of that trial; raises KdsearchError where there is none."""
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
    """A student that the chosen one is compared with, image by image."""

    student: Student
    behind: Difference
    """Of Dice, chosen minus comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was picked and what nearly was."""

    candidate: Candidate
    sentence: str
    runner_up: Comparison | None
    """The one that the rule places next; None where a person chose, or no other's Dice is known here."""
    comparisons: tuple[Comparison, ...]
    """Those compared, smallest first."""
    selection_bias: float = 0.0
    """By how much Dice the best of those within the budget looks better than it is; 0 where another rule chose."""
    claim: str = ""
    """What was confirmed of it; empty where it was not."""
    standing: Standing | None = None
    """Among all students of the study; None where it cannot be told."""

    @property
    def as_good(self) -> tuple[Comparison, ...]:
        """Those not distinguishable from the chosen one, smallest first."""
        return tuple(comparison for comparison in self.comparisons if comparison.behind.within_noise)

    @property
    def caution(self) -> str:
        """Says where another is as good as far as anybody can tell; empty where none is."""
        sentences = [self.claim or NOT_CONFIRMED]
        if self.runner_up is not None and self.runner_up.behind.within_noise:
            behind = self.runner_up.behind
            sentences.append(
                f"The runner-up, trial {self.runner_up.student.number}, is {INDISTINGUISHABLE}: "
                f"the difference is {behind} points of Dice (95 % over all comparisons)."
            )
        chosen = self.candidate.student.scores
        smaller = [comparison for comparison in self.as_good if comparison.student.scores.params < chosen.params]
        if smaller:
            least = smaller[0].student
            sentences.append(
                f"Of {len(self.comparisons)} compared, {len(smaller)} with fewer parameters are {INDISTINGUISHABLE}; "
                f"the smallest is trial {least.number}: {least.scores.headline()}."
            )
        if self.as_good:
            sentences.append(SEED_SPREAD)
        if self.selection_bias >= LEAST_SELECTION_BIAS:
            sentences.append(
                f"Choosing the best by these images overstates its Dice by about {100 * self.selection_bias:.1f} "
                "points (bootstrap over groups of images)."
            )
        if self.standing is not None:
            often, corrected = f"{100 * self.standing.stability:.0f}", self.standing.corrected
            sentences.append(
                f"It stays on the front in {often} % of resamples of the validation images, a measure of stability and "
                f"no probability. The best student no larger is expected to reach {corrected} % Dice on other images."
            )
        return " ".join(sentences)


def candidates_of(
    known: Candidates, students: Sequence[Student], *, budget: Budget, say: Callable[[str], None]
) -> list[Candidate]:
    """The students; where the budget asks for it, those that may be within it with their latency and file size."""
    plain = [Candidate(student=student) for student in students]
    possible = [entry for entry in plain if budget.without_measures().excess(entry) <= 0]
    if not budget.needs_measuring or not possible:
        return plain
    say(f"measuring {len(possible)} students on this machine")
    return [_measured(known, entry.student) for entry in possible]


def choose(known: Candidates, candidates: Sequence[Candidate], *, budget: Budget, rule: Rule) -> Choice | None:
    """The rule's choice among the candidates within the budget; None where none is."""
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
    """The rule's choice among the confirmed students within the budget, by what was confirmed; None where none is."""
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
    """What was confirmed of the student, and what the locked images said of it; empty where nothing was."""
    words = [
        say(member, found)
        for found, say in ((known.confirmed, claim), (known.tested, tested_claim))
        if found is not None and (member := found.member_of(student.number)) is not None
    ]
    return " ".join(words)


def as_asked_for(known: Candidates, chosen: Candidate) -> Choice:
    """The choice of a person, compared with all students."""
    how = {
        "validation": "as asked for",
        "test": f"trained on all but the locked images with seed {chosen.student.recipe.seed}, as was said beforehand",
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
    """The students nearest in Dice, and that of the trial ``always``, smallest first.

    The intervals cover the choice among all of ``others``, however few of them are compared.
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
    """Of the best of the students whose Dice on each image is known here."""
    here = {student.number: student for student in students if known.pictures.has_dice(student)}
    best = sorted(here.values(), key=lambda student: -student.scores.dice)[:MOST_RESAMPLED]
    return selection_bias([known.pictures.dice(student) for student in best], known.pictures.groups) if best else 0.0


def _measured(known: Candidates, student: Student) -> Candidate:
    network = load_weights(student, known.weights_of(student))
    file_bytes, latency = measure_onnx(network, size=known.study.data.size)
    return Candidate(student=student, file_bytes=file_bytes, latency_ms=latency.median_ms)
