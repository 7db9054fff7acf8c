"""A folder that was written before is taken for what it is."""

from __future__ import annotations

import shutil

import pytest

from kdsearch.errors import KdsearchError
from kdsearch.export.description import read_description
from kdsearch.export.folder import Form, find_shipped
from tests.front.students import student
from tests.shipping import PLAIN

pytestmark = pytest.mark.xdist_group("shipping")


def _find(folder, weights, *, number=3, form=PLAIN):
    return find_shipped(folder, student(number, 0.7, 10), weights=weights, form=form)


def test_the_same_student_in_the_same_form_is_recognised(shipped, weights, tmp_path):
    assert _find(shipped, weights) == read_description(shipped)
    assert _find(tmp_path / "absent", weights) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": 4}, r"exists already \(it holds trial 3 of a study tiny, not these weights\); remove it, or name"),
        ({"form": Form(preprocessing=True, int8_bound=1.0)}, "written without --with-preprocessing"),
        ({"form": Form(preprocessing=False, int8_bound=0.5)}, "written with --int8-bound 1"),
    ],
)
def test_something_else_is_refused(shipped, weights, changes, message):
    with pytest.raises(KdsearchError, match=message):
        _find(shipped, weights, **changes)


def test_folder_that_was_tampered_with_is_refused(shipped, weights, tmp_path):
    folder = tmp_path / "student"
    shutil.copytree(shipped, folder)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(KdsearchError, match=r"exists already \(.*not the file that student.yaml describes"):
        _find(folder, weights)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other weights")
    with pytest.raises(KdsearchError, match="not these weights"):
        _find(shipped, other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(KdsearchError, match=r"exists already \(.*holds no student.yaml"):
        _find(tmp_path / "empty", weights)
