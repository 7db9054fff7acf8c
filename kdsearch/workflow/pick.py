"""Picks a student from a study, exports it to a folder and registers it in MLflow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdsearch.campaign.preparation import open_materials
from kdsearch.config.distillation import teaches_without_masks
from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError, writing
from kdsearch.export.description import Description
from kdsearch.export.folder import Form, Provenance, find_shipped, ship_student
from kdsearch.export.seen import dump_seen
from kdsearch.export.timing import ONNX
from kdsearch.files.onnx_runtime import example_feed, open_session
from kdsearch.front.dominance import is_within
from kdsearch.front.rules import Budget, Candidate, Rule, nearest_to
from kdsearch.search.pictures import Pictures
from kdsearch.search.store import read_store
from kdsearch.statistics.selection import standings_of
from kdsearch.tracking.location import Tracking, choose_tracking
from kdsearch.trials.record import Student, students_of
from kdsearch.workflow.choosing import Candidates, Choice, as_asked_for, candidates_of, choose, choose_confirmed
from kdsearch.workflow.confirm import confirmation, openings, refitted

FILES_CHANGED = (
    "The study's image folders are unavailable or have changed since its trials. The images came from the cache, so "
    "there are no scores at original resolution."
)
RUNTIME = ("numpy", "onnx", "onnxruntime")
"""Packages that are needed to load the model from the registry."""


def open_candidates(study: StudyConfig, home: Path, *, resume: str) -> Candidates:
    """Returns the study's students to choose from; error messages recommend the command ``resume``.

    Raises KdsearchError if there are none, or the study's images or teacher are missing.
    """
    store = read_store(study, home)
    finished = students_of(store.records())
    if not finished:
        raise KdsearchError(f"study {study.name} has no finished student yet; train some with {resume}")
    students = tuple(student for student in finished if is_within(student, study.search.limits))
    if not students:
        raise KdsearchError(none_within(finished, study))
    materials = open_materials(study, home, data=store.data(), teacher_id=store.teacher_id)
    pictures = Pictures(study, materials, home)
    return Candidates(
        students=students,
        study=study,
        study_id=store.id,
        complete=store.complete(),
        materials=materials,
        pictures=pictures,
        standings=standings_of(students, study.search.objectives, pictures.groups),
        home=home,
        confirmed=confirmation(study, home),
        tested=confirmation(study, home, kind="test"),
        search_splits=materials.splits,
        test_openings=openings(study, home),
    )


def none_within(students: tuple[Student, ...], study: StudyConfig) -> str:
    """Explains that no finished student reaches ``search.limits.min_specificity``."""
    best = max(student.scores.overlap.specificity or 0.0 for student in students)
    return (
        f"study {study.name}: none of {len(students)} finished students reaches a specificity of "
        f"{study.search.limits.min_specificity:g} on the negative images (search.limits.min_specificity); the best "
        f"reaches {best:.2f}; lower the limit, or also train on negative images (data.train_on_negatives)"
    )


def pick(
    known: Candidates, *, budget: Budget, rule: Rule, trial: int | None, say: Callable[[str], None]
) -> Choice | list[Candidate]:
    """Returns the rule's choice within the budget, or that trial; if none is within the budget, all candidates.

    Chooses among the confirmed students by their confirmed Dice, if one of them is within the budget. ``say`` is
    called before slow steps. Raises KdsearchError if the trial has no student.
    """
    wanted = known.students if trial is None else (known.find(trial),)
    candidates = candidates_of(known, wanted, budget=budget, say=say)
    confirmed = choose_confirmed(known, candidates, budget=budget, rule=rule) if trial is None else None
    if confirmed is not None:
        return confirmed
    choice = choose(known, candidates, budget=budget, rule=rule)
    if choice is None:
        return candidates
    return choice if trial is None else as_asked_for(known, choice.candidate)


def folder_of(known: Candidates, student: Student) -> Path:
    """Returns the default folder for a student."""
    refit = "-refit" if known.scored_on == "test" else ""
    return Path("picked") / f"{known.study.name}-{student.number}{refit}"


def with_refit(known: Candidates, *, trial: int | None, refit: bool) -> tuple[Candidates, int | None]:
    """Returns the candidates and the requested trial; with ``refit``, only the student that ``kdsearch test`` trained.

    Raises KdsearchError if there was no such test.
    """
    if not refit:
        return known, trial
    tested = refitted(known, trial=trial)
    return tested, tested.students[0].number


def rule_named(*, smallest_within: float | None, knee: bool) -> Rule:
    """Returns the requested rule (default: the best Dice)."""
    if smallest_within is not None:
        return Rule(name="smallest-within", tolerance=smallest_within)
    return Rule(name="knee" if knee else "best")


def require_choice(found: Choice | list[Candidate], budget: Budget) -> Choice:
    """Returns the choice that ``pick`` made; raises KdsearchError with the nearest student if it made none."""
    if not isinstance(found, list):
        return found
    closest = nearest_to(found, budget)
    assert closest is not None, "there are candidates"
    raise KdsearchError(
        f"none of {len(found)} students is within {budget}; the nearest is trial {closest.student.number}: "
        f"{closest.student.scores.headline()}"
    )


def ship(known: Candidates, choice: Choice, *, form: Form, folder: Path, say: Callable[[str], None]) -> Description:
    """Exports the student to the folder, unless the same call did before. Raises KdsearchError or OSError."""
    student, materials = choice.candidate.student, known.materials
    if not teaches_without_masks(student.recipe.distillation):
        materials = dataclasses.replace(materials, unlabelled=None)
    weights = known.weights_of(student)
    found = find_shipped(folder, student, weights=weights, form=form)
    if found is not None and choice.claim in found.chosen:
        say(f"{folder} already contains this student")
        return found
    say(f"exporting, checking against torch, quantizing{', timing' if form.latency else ''} …")
    return ship_student(
        student,
        known.study,
        materials,
        weights=weights,
        overlays=known.pictures.sheet(student),
        form=form,
        provenance=Provenance(
            chosen=" ".join(
                filter(None, (choice.sentence, choice.caution, FILES_CHANGED if materials.cached_because else ""))
            ),
            seen=dump_seen(materials.dataset, known.search_splits, materials.unlabelled),
            test_openings=known.test_openings,
            tested=known.tested is not None and known.tested.member_of(student.number) is not None,
            scored_on=known.scored_on,
        ),
        folder=folder,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A student that was written to a folder."""

    folder: Path
    description: Description
    model_uri: str | None
    """Its version in MLflow's registry; None if it was not registered."""


def deliver(
    known: Candidates,
    choice: Choice,
    *,
    form: Form,
    out: Path | None,
    registry: Mapping[str, str] | None,
    without: str,
    say: Callable[[str], None],
) -> Delivered:
    """Exports the chosen student to a folder and registers it in MLflow.

    ``registry`` is the environment that may set MLflow's URI; None skips the registration. Error messages recommend
    the option ``without`` to skip it. Raises KdsearchError, at once if MLflow cannot be reached.
    """
    tracking = None
    if registry is not None:
        tracking = choose_tracking(known.study.tracking_uri, registry)
        try:
            tracking.require()
        except KdsearchError as error:
            raise KdsearchError(f"{error}; {without} skips the registry") from error
    folder = out or folder_of(known, choice.candidate.student)
    with writing(folder):
        description = ship(known, choice, form=form, folder=folder, say=say)
    try:
        model_uri = None if tracking is None else register(known, folder, description, tracking=tracking)
    except KdsearchError as error:
        raise KdsearchError(f"{error}. {folder} is complete; repeat the same pick to register it") from error
    return Delivered(folder=folder, description=description, model_uri=model_uri)


def register(known: Candidates, folder: Path, description: Description, *, tracking: Tracking) -> str:
    """Registers the folder's student in MLflow and returns its URI. Raises KdsearchError."""
    from kdsearch.tracking.registry import Registration, register_student  # slow to import

    model = folder / ONNX
    registration = Registration(
        folder=folder,
        study=known.study.name,
        study_id=known.study_id,
        trial=description.trial,
        scores=description.scores,
        scored_on=description.scored_on,
        digest=description.files[model.name],
        packages={name: description.made_with[name] for name in RUNTIME},
        example=example_feed(open_session(model)),
    )
    return register_student(registration, tracking)
