"""Picks a student of a study, writes it to a folder, and registers it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdsearch.campaign.preparation import open_materials
from kdsearch.config.distillation import teaches_without_masks
from kdsearch.config.study import StudyConfig
from kdsearch.errors import KdsearchError, writing
from kdsearch.export.description import ONNX, Description
from kdsearch.export.folder import Form, Provenance, find_shipped, ship_student
from kdsearch.export.seen import dump_seen
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
    "The study's folders could not be read, or held other images than those of its trials. These came from the cache, "
    "so nothing was measured at the files' size."
)
RUNTIME = ("numpy", "onnx", "onnxruntime")
"""What a program needs that loads the model from the registry."""


def open_candidates(study: StudyConfig, home: Path, *, resume: str) -> Candidates:
    """The study's students to pick from; ``resume`` is how a person would train more.

    Raises KdsearchError where there are none, or the study's images or teacher are not there.
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
    """That no finished student reaches ``search.limits.min_specificity``, and what the best of them does."""
    best = max(student.scores.overlap.specificity or 0.0 for student in students)
    return (
        f"study {study.name}: none of {len(students)} finished students leaves at least "
        f"{study.search.limits.min_specificity:g} of the negative images empty (search.limits.min_specificity); the "
        f"best leaves {best:.2f}; lower the limit, or train on negative images too (data.train_on_negatives)"
    )


def pick(
    known: Candidates, *, budget: Budget, rule: Rule, trial: int | None, say: Callable[[str], None]
) -> Choice | list[Candidate]:
    """The rule's choice within the budget, or that trial's; the candidates where none of them is within the budget.

    Confirmed students come first, by what was confirmed of them.

    ``say`` is called with what takes long. Raises KdsearchError for a trial that has no student.
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
    """Where a student is put unless another folder is named."""
    refit = "-refit" if known.scored_on == "test" else ""
    return Path("picked") / f"{known.study.name}-{student.number}{refit}"


def with_refit(known: Candidates, *, trial: int | None, refit: bool) -> tuple[Candidates, int | None]:
    """The candidates and the trial that is asked for; with ``refit``, what ``kdsearch test`` trained.

    Raises KdsearchError if that was not done.
    """
    if not refit:
        return known, trial
    tested = refitted(known, trial=trial)
    return tested, tested.students[0].number


def rule_named(*, smallest_within: float | None, knee: bool) -> Rule:
    """The rule that was asked for; the best Dice unless one was."""
    if smallest_within is not None:
        return Rule(name="smallest-within", tolerance=smallest_within)
    return Rule(name="knee" if knee else "best")


def require_choice(found: Choice | list[Candidate], budget: Budget) -> Choice:
    """The choice that ``pick`` made; raises KdsearchError, naming the nearest, where nothing is within the budget."""
    if not isinstance(found, list):
        return found
    closest = nearest_to(found, budget)
    assert closest is not None, "there are candidates"
    raise KdsearchError(
        f"no student of {len(found)} is within {budget}; the nearest is trial {closest.student.number}: "
        f"{closest.student.scores.headline()}"
    )


def ship(known: Candidates, choice: Choice, *, form: Form, folder: Path, say: Callable[[str], None]) -> Description:
    """Writes the student's folder, or finds it as the same call left it. Raises KdsearchError or OSError."""
    student, materials = choice.candidate.student, known.materials
    if not teaches_without_masks(student.recipe.distillation):
        materials = dataclasses.replace(materials, unlabelled=None)
    weights = known.weights_of(student)
    found = find_shipped(folder, student, weights=weights, form=form)
    if found is not None and choice.claim in found.chosen:
        say(f"{folder} holds this student already")
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
    """Writes the chosen student's folder and registers it.

    ``registry`` is the environment in which MLflow is found; None registers nothing. ``without`` is how a person leaves
    the registry out. Raises KdsearchError, before minutes of work if MLflow cannot be reached.
    """
    tracking = None
    if registry is not None:
        tracking = choose_tracking(known.study.tracking_uri, registry)
        try:
            tracking.require()
        except KdsearchError as error:
            raise KdsearchError(f"{error}; {without} leaves the registry out") from error
    folder = out or folder_of(known, choice.candidate.student)
    with writing(folder):
        description = ship(known, choice, form=form, folder=folder, say=say)
    try:
        model_uri = None if tracking is None else register(known, folder, description, tracking=tracking)
    except KdsearchError as error:
        raise KdsearchError(f"{error}. {folder} is complete; pick it again in the same way to register it") from error
    return Delivered(folder=folder, description=description, model_uri=model_uri)


def register(known: Candidates, folder: Path, description: Description, *, tracking: Tracking) -> str:
    """The folder's student as a version in MLflow's registry; returns its name. Raises KdsearchError."""
    from kdsearch.tracking.registry import Registration, register_student  # takes seconds to import

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
