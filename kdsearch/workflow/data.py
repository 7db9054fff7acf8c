"""Audits a study's images: what they are, how they are split, and which of them somebody should check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdsearch.config.sources import PhantomSource, source_name
from kdsearch.config.study import StudyConfig
from kdsearch.confirm.store import TEACHER, ConfirmStore, open_confirmation
from kdsearch.data.audit import Finding, ImageLook, class_rows, composition, findings, look
from kdsearch.data.cache import load_dataset, load_unlabelled
from kdsearch.data.dataset import Dataset, Splits, UnlabelledPart
from kdsearch.data.layout import Remark, passed_over
from kdsearch.data.native import NativeImage, native_images
from kdsearch.data.neighbors import neighbors_apart
from kdsearch.data.source import check_tables, list_source
from kdsearch.data.splits import development_images, split
from kdsearch.errors import NotRunYetError
from kdsearch.files.home import storage_url
from kdsearch.report.page import data_page
from kdsearch.search.store import read_store

MOST_SHOWN = 24
"""Maximum number of images that are shown for a finding."""
CONTRADICTED = 24
"""Number of images that are listed because the teacher contradicts their mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataAudit:
    """The result of an audit of a study's images."""

    study: StudyConfig
    composition: tuple[tuple[str, ...], ...]
    """A table: the header, then one row per source and label."""
    classes: tuple[tuple[str, ...], ...]
    """A table: the header, then one row per class; empty if there is only one."""
    parts: tuple[tuple[str, ...], ...]
    """A table: the header, then one row per part of the split and per fold."""
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]
    """Defects of the images that were left out."""
    files: tuple[str, ...]
    """For each source, the numbers of files found, read and left out."""
    passed_over: tuple[Remark, ...]
    """Files that were not read."""
    cautions: tuple[str, ...]
    """Table columns that are not read, and reasons why scores are probably optimistic."""


def audit(study: StudyConfig, home: Path) -> DataAudit:
    """Audits the study's images. Raises DataError if they cannot be read."""
    unread = check_tables(study.data)
    dataset = load_dataset(study.data, home)
    splits = split(dataset, study.data.split, train_on_negatives=study.data.train_on_negatives)
    unlabelled = load_unlabelled(study.data, home, dataset, splits)
    looks: list[ImageLook] = list(look(study.data, dataset.infos))
    confirmed = _confirmation(study, home)
    ids = {info.id for info in dataset.infos}
    of_images = [remark for remark in dataset.remarks if ids.issuperset(remark.names)]
    found = [Finding(what=remark.what, images=tuple((name,) for name in remark.names)) for remark in of_images]
    found += findings(looks, channels=study.data.channels)
    neighbors = neighbors_apart(dataset, splits)
    if confirmed is not None:
        found.insert(0, _contradicted(confirmed, dataset, splits))
    return DataAudit(
        study=study,
        composition=tuple(composition(looks)) if looks else (),
        classes=tuple(class_rows(looks, dataset.classes)) if looks and dataset.classes else (),
        parts=tuple(_parts(dataset, splits, confirmed, unlabelled)),
        findings=tuple(one for one in found if one.images),
        skipped=(*dataset.skipped, *(unlabelled.whole.skipped if unlabelled is not None else ())),
        files=tuple(_files(study, dataset)),
        passed_over=(
            *(remark for remark in dataset.remarks if remark not in of_images),
            *(unlabelled.whole.remarks if unlabelled is not None else ()),
        ),
        cautions=(*unread, *(() if neighbors is None else (f"Caution: {neighbors}",))),
    )


def _files(study: StudyConfig, dataset: Dataset) -> Iterable[str]:
    """For each source of files, how many were found, read and left out, and why."""
    ids = {info.id for info in dataset.infos}
    for source in study.data.sources:
        if isinstance(source, PhantomSource):
            continue
        listing, name = list_source(source), source_name(source)
        over = passed_over(listing)
        read = [entry for entry in listing.entries if f"{name}/{entry.id}" in ids]
        images, masks = len(read), sum(len(entry.masks) for entry in read)
        passed = sum(len(remark.names) for remark in over)
        found = len(listing.files) + len(listing.defects) + len(listing.known) + passed
        defective = found - images - masks - passed - len(listing.known)
        reasons = [
            *([f"{defective} because of defects"] if defective else []),
            *([f"{len(listing.known)} not used by reader {source.reader}"] if listing.known else []),
        ]
        why = f": {'; '.join(reasons)}" if reasons else ""
        yield (
            f"{name}: {found} files found, {images} images and {masks} masks read, {found - images - masks} files left "
            f"out{why}"
        )


def page_of(found: DataAudit) -> str:
    """Returns the audit as an HTML page that shows the first images of each finding."""
    wanted = {name for finding in found.findings for name in finding.ids[:MOST_SHOWN]}
    pictures: Mapping[str, NativeImage] = {image.id: image for image in native_images(found.study.data, wanted)}
    return data_page(
        name=found.study.name,
        tables=tuple(table for table in (found.composition, found.classes, found.parts) if table),
        remarks=(*found.files, *map(str, found.passed_over), *found.cautions),
        findings=found.findings,
        pictures=pictures,
        most_shown=MOST_SHOWN,
        skipped=found.skipped,
    )


def _confirmation(study: StudyConfig, home: Path) -> ConfirmStore | None:
    """The study's confirmation if it is finished, because it has scored a teacher on each fold; else None."""
    try:
        search = read_store(study, home)
    except NotRunYetError:
        return None
    url = storage_url(home, study.name, study.storage)
    store = open_confirmation(url, study.name, study_id=search.id)
    return store if store is not None and store.complete() else None


def _contradicted(store: ConfirmStore, dataset: Dataset, splits: Splits) -> Finding:
    """The images for which the cross-validated teacher has the lowest Dice, the worst first."""
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
            if value == value:  # noqa: PLR0124 - false for NaN
                dice.setdefault(place, []).append(value)
    worst = sorted(dice, key=lambda place: (sum(dice[place]) / len(dice[place]), place))[:CONTRADICTED]
    return Finding(
        what="images for which a teacher that was not trained on them contradicts the mask most",
        images=tuple((dataset.infos[place].id,) for place in worst),
    )


def _parts(
    dataset: Dataset, splits: Splits, confirmed: ConfirmStore | None, unlabelled: UnlabelledPart | None
) -> Iterable[tuple[str, ...]]:
    """The header and rows that count images by part of the split, by fold of a confirmation, and without masks."""
    labels = sorted({info.label or "" for info in dataset.infos})
    labels = [] if labels == [""] else labels
    yield ("part", "images", "with a lesion", *labels)
    rows = [("train", splits.train), ("validation", splits.validation), ("test, locked", splits.test)]
    if confirmed is not None:
        positions = development_images(dataset, splits)
        for repetition, folds in enumerate(confirmed.images().folds):
            for fold in range(max(folds) + 1):
                here = tuple(place for place, other in zip(positions, folds, strict=True) if other == fold)
                rows.append((f"repetition {repetition + 1}, fold {fold + 1}", here))
    lesion = dataset.has_foreground
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
