"""Reads a study file as a StudyConfig, or raises one error that lists all its problems."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from kdsearch.config.networks import TeacherConfig
from kdsearch.config.problems import describe, former_settings, listed, rename_settings, without
from kdsearch.config.ranges import READING
from kdsearch.config.sources import PhantomSource, source_name
from kdsearch.config.space import extreme_students, size_of
from kdsearch.config.study import StudyConfig
from kdsearch.config.yaml_file import YamlFile, dump_yaml
from kdsearch.errors import StudyFileError, nearest

logger = logging.getLogger(__name__)


def load_study(source: Path | Mapping[str, object], settings: Sequence[str] = ()) -> StudyConfig:
    """Reads a study that will be trained, from a file or a mapping.

    ``settings`` such as ``training.epochs=20`` replace those of the file. A name without a folder, such as
    ``pareto``, is also that of a study that comes with kdsearch. Raises StudyFileError with the line, the
    field and a remedy for every problem.
    """
    file, renamed = rename_settings(_opened(source).with_settings(settings))
    try:
        study = StudyConfig.model_validate_json(json.dumps(file.content))
    except ValidationError as error:
        raise StudyFileError(describe(error, file, StudyConfig, renamed=renamed)) from None
    if renamed:
        raise StudyFileError(listed(renamed))
    _check_grid(study, file)
    _check_depth(study, file)
    return study


def read_study(source: Path | Mapping[str, object], settings: Sequence[str] = ()) -> StudyConfig:
    """Reads a study of any release to show its results, without applying the rules for training.

    Renamed settings are read and removed ones are ignored, with a warning. Raises StudyFileError if it is not a study.
    """
    file, renamed = rename_settings(_opened(source).with_settings(settings))
    if renamed:
        logger.warning("the study file uses old names, which kdsearch still reads:\n%s", listed(renamed))
    content = file.content
    try:
        try:
            return StudyConfig.model_validate_json(json.dumps(content), context=READING)
        except ValidationError as error:
            former = former_settings(error, file)
            if not former:
                raise
            logger.warning("ignored settings of the study file:\n%s", describe(error, file, StudyConfig))
            content = without(content, former)
        return StudyConfig.model_validate_json(json.dumps(content), context=READING)
    except ValidationError as error:
        raise StudyFileError(describe(error, file, StudyConfig)) from None


def _opened(source: Path | Mapping[str, object]) -> YamlFile:
    return YamlFile.of(source) if isinstance(source, Mapping) else YamlFile(find_study(source))


def shipped_studies() -> dict[str, Path]:
    """The study files that come with kdsearch, by name."""
    package = Path(__file__).parents[1]
    folder = package / "studies" if (package / "studies").is_dir() else package.parent / "studies"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_study(file: Path) -> Path:
    """The file, or the study of this name that comes with kdsearch; raises StudyFileError if there is neither."""
    if file.exists() or file.suffix or file.parent != Path():
        return file
    shipped = shipped_studies()
    if file.name in shipped:
        return shipped[file.name]
    remedy = nearest(file.name, shipped) or "; list them with: kdsearch studies"
    raise StudyFileError(f"{file}: no such study file, and no study of this name comes with kdsearch{remedy}")


def _check_grid(study: StudyConfig, file: YamlFile) -> None:
    if study.search.sampler == "grid" and size_of(study) is None:
        raise StudyFileError(
            f"{file.place(('search', 'sampler'))}: search.sampler: grid needs a finite space; "
            "give every float range a step, or replace it with a choice"
        )


def _check_depth(study: StudyConfig, file: YamlFile) -> None:
    teacher = study.teacher
    depth = teacher.encoder_depth if isinstance(teacher, TeacherConfig) else 0
    own = teacher.size if isinstance(teacher, TeacherConfig) else None
    students = max(spec.stride for spec in extreme_students(study))
    if own is not None:
        _require_divisible(own, 2**depth, ("teacher", "size"), file)
    for side in dict.fromkeys(study.data.shape):
        _require_divisible(side, students if own else max(2**depth, students), ("data", "size"), file)


def _require_divisible(size: int, stride: int, field: tuple[str, str], file: YamlFile) -> None:
    if size % stride:
        below = size // stride * stride
        valid = " or ".join(str(near) for near in (below, below + stride) if near >= 16)
        raise StudyFileError(
            f"{file.place(field)}: {'.'.join(field)}: {size} is not divisible by {stride}, "
            f"the stride of the deepest network; the nearest sizes that work are {valid}"
        )


def with_search(study: StudyConfig, *, trials: int | None, workers: int | None) -> StudyConfig:
    """Returns the study with these numbers of trials and workers; raises StudyFileError if one is below 1."""
    given = {"trials": trials, "workers": workers}
    wanted = {name: value for name, value in given.items() if value is not None}
    for name, value in wanted.items():
        if value < 1:
            raise StudyFileError(f"{name}: must be at least 1, got {value}")
    return study.model_copy(update={"search": study.search.model_copy(update=wanted)}) if wanted else study


def with_confirm(study: StudyConfig, *, repetitions: int | None) -> StudyConfig:
    """Returns the study with this number of repetitions; raises StudyFileError if it is below 1."""
    if repetitions is None:
        return study
    if repetitions < 1:
        raise StudyFileError(f"repetitions: must be at least 1, got {repetitions}")
    return study.model_copy(update={"confirm": study.confirm.model_copy(update={"repetitions": repetitions})})


def with_folders(study: StudyConfig, folders: Sequence[str]) -> StudyConfig:
    """Returns the study with other folders: ``PATH`` for the only source, ``NAME=PATH`` for one of several."""
    given = dict(_named_folder(study, text) for text in folders)
    if not given:
        return study
    changed = {
        key: tuple(
            source.model_copy(update={"folder": given[source_name(source)]}) if source_name(source) in given else source
            for source in getattr(study.data, key)
        )
        for key in ("sources", "unlabelled")
    }
    return study.model_copy(update={"data": study.data.model_copy(update=changed)})


def _named_folder(study: StudyConfig, text: str) -> tuple[str, str]:
    data = study.data
    labelled, names = (
        [source_name(source) for source in sources if not isinstance(source, PhantomSource)]
        for sources in (data.sources, (*data.sources, *data.unlabelled))
    )
    name, equals, folder = text.partition("=")
    if len(labelled) == 1 and (not equals or "/" in name):  # a source's name contains no slash
        return labelled[0], text
    if not equals or name not in names:
        known = ", ".join(names) or "none that reads a folder"
        raise StudyFileError(
            f"--data {text}: write NAME=FOLDER; the study's sources are: {known}{nearest(name, names)}"
        )
    return name, folder


def dump_study(study: StudyConfig) -> str:
    """Returns the study as YAML, including all defaults."""
    values = study.model_dump(mode="json", by_alias=True)
    return dump_yaml(values)
