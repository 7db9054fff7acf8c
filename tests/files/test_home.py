"""The folders of a study's files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdsearch.campaign.preparation import student_weights
from kdsearch.config.load import load_study
from kdsearch.config.sources import FolderSource
from kdsearch.data.source import list_source
from kdsearch.distill.teacher import TeacherRecipe
from kdsearch.distill.teacher_folder import teacher_folder
from kdsearch.errors import KdsearchError
from kdsearch.files.home import checkpoint_folder, expanded
from kdsearch.models.encoders import load_encoder_weights

NOBODY = "~nosuchuser/x"


def test_tilde_is_expanded_to_the_home_folder():
    assert expanded("~/x", field="f") == Path.home() / "x"
    assert expanded("x", field="f") == Path("x")


def test_home_of_an_unknown_user_is_refused_in_every_path_setting(study_file):
    def refused(field):
        return pytest.raises(KdsearchError, match=f"{field}: {NOBODY}: this user does not exist; write the")

    with refused("search.checkpoint_url"):
        checkpoint_folder(Path(), "a", NOBODY, study_id="0")
    with refused("data.sources: folder"):
        list_source(FolderSource(reader="folder", folder=NOBODY))
    with refused("student.weights"):
        student_weights(load_study(study_file(f"name: a\nstudent: {{family: timm, weights: 'file:{NOBODY}'}}\n")))
    for settings, field in (
        (f"checkpoint: {NOBODY}", "teacher"),
        (f"weights: 'file:{NOBODY}'", "teacher"),
        (f"kind: predictions, folder: {NOBODY}", "teacher.folder"),
    ):
        study = load_study(study_file(f"name: a\nteacher: {{{settings}}}\n"))
        with refused(field):
            teacher_folder(TeacherRecipe.of(study), "0", Path())
    with refused("teacher.weights"):
        load_encoder_weights(torch.nn.Identity(), f"file:{NOBODY}", section="teacher")
