"""Looks at a study's images: what they are, how they are shared out, and which of them a person should look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdsearch.config.study import StudyConfig
from kdsearch.confirm.store import TEACHER, ConfirmStore, open_confirmation
from kdsearch.data.audit import Finding, ImageLook, composition, findings, look
from kdsearch.data.cache import load_dataset
from kdsearch.data.dataset import Dataset, Splits, UnlabelledPart
from kdsearch.data.folds import development_images
from kdsearch.data.native import NativeImage, native_images
from kdsearch.data.splits import split
from kdsearch.data.unlabelled import load_unlabelled
from kdsearch.errors import NotRunYetError
from kdsearch.files.home import storage_url
from kdsearch.report.data_page import data_page
from kdsearch.search.store import read_store

MOST_SHOWN = 24
"""Images of a finding that are drawn."""
CONTRADICTED = 24
"""Images that are listed because the teacher contradicts their mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataAudit:
    """What was seen of a study's images."""

    study: StudyConfig
    composition: tuple[tuple[str, ...], ...]
    """A table: head, then a row for each source and label."""
    parts: tuple[tuple[str, ...], ...]
    """A table: head, then a row for each part of the split and each fold."""
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]
    """Defects of images that were left out."""


def audit(study: StudyConfig, home: Path) -> DataAudit:
    """Raises DataError where images cannot be had."""
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_without_lesion=study.data.train_without_lesion)
    unlabelled = load_unlabelled(study.data, home, dataset, splits)
    looks: list[ImageLook] = list(look(study.data, dataset.infos))
    confirmed = _confirmation(study, home)
    found = list(findings(looks))
    if confirmed is not None:
        found.insert(0, _contradicted(confirmed, dataset, splits))
    return DataAudit(
        study=study,
        composition=tuple(composition(looks)) if looks else (),
        parts=tuple(_parts(dataset, splits, confirmed, unlabelled)),
        findings=tuple(one for one in found if one.images),
        skipped=(*dataset.skipped, *(unlabelled.whole.skipped if unlabelled is not None else ())),
    )


def page_of(found: DataAudit) -> str:
    """The audit as one HTML page, with the first images of each finding drawn."""
    wanted = {name for finding in found.findings for name in finding.ids[:MOST_SHOWN]}
    pictures: Mapping[str, NativeImage] = {image.id: image for image in native_images(found.study.data, wanted)}
    return data_page(
        name=found.study.name,
        tables=(found.composition, found.parts),
        findings=found.findings,
        pictures=pictures,
        most_shown=MOST_SHOWN,
        skipped=found.skipped,
    )


def _confirmation(study: StudyConfig, home: Path) -> ConfirmStore | None:
    """Where every fold's teacher has been scored; None where there is none."""
    try:
        search = read_store(study, home)
    except NotRunYetError:
        return None
    url = storage_url(home, study.name, study.storage)
    store = open_confirmation(url, study.name, study_id=search.id)
    return store if store is not None and store.complete() else None


def _contradicted(store: ConfirmStore, dataset: Dataset, splits: Splits) -> Finding:
    """Images whose mask the teacher that never saw them contradicts most, the worst first."""
    positions, described = development_images(dataset, splits), store.images()
    dice: dict[int, list[float]] = {}
    for result in store.results().values():
        if result.arm != TEACHER or result.scores is None or result.scores.native is None:
            continue
        here = [
            place
            for place, fold in zip(positions, described.folds[result.repetition], strict=True)
            if fold == result.fold
        ]
        for place, value in zip(here, result.scores.native.dice, strict=True):
            if value == value:  # noqa: PLR0124 - NaN differs from itself
                dice.setdefault(place, []).append(value)
    worst = sorted(dice, key=lambda place: (sum(dice[place]) / len(dice[place]), place))[:CONTRADICTED]
    return Finding(
        what="images whose mask the teacher, which never saw them, contradicts most",
        images=tuple((dataset.infos[place].id,) for place in worst),
    )


def _parts(
    dataset: Dataset, splits: Splits, confirmed: ConfirmStore | None, unlabelled: UnlabelledPart | None
) -> Iterable[tuple[str, ...]]:
    """Images of each label in each part of the split, in the folds of a confirmation, and those without masks."""
    labels = sorted({info.label or "" for info in dataset.infos})
    yield ("part", "images", "with a lesion", *labels)
    rows = [("train", splits.train), ("validation", splits.validation), ("test, locked", splits.test)]
    if confirmed is not None:
        positions = development_images(dataset, splits)
        for repetition, folds in enumerate(confirmed.images().folds):
            for fold in range(max(folds) + 1):
                here = tuple(place for place, other in zip(positions, folds, strict=True) if other == fold)
                rows.append((f"repetition {repetition + 1}, fold {fold + 1}", here))
    lesion = dataset.has_lesion
    for name, part in rows:
        counts = Counter(dataset.infos[place].label or "" for place in part)
        yield (
            name,
            str(len(part)),
            str(sum(bool(lesion[place]) for place in part)),
            *(str(counts[one]) for one in labels),
        )
    if unlabelled is not None:
        every = Counter(info.source for info in unlabelled.whole.infos)
        used = Counter(unlabelled.whole.infos[place].source for place in unlabelled.positions)
        for source, count in every.items():
            left_out = f", {count - used[source]} more left out" if count > used[source] else ""
            yield (f"{source}, without masks{left_out}", str(used[source]), "", *("" for _ in labels))
