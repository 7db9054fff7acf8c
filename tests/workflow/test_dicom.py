"""A study of DICOM clips: what identifies a patient stays in the files."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset

from kdsearch.cli.main import main
from kdsearch.data.phantom import simulate
from kdsearch.workflow.init import inspect
from tests.data.scans import saved, write_scan, write_segmentation

PLANTED, PLANTED_UID = "PLANTEDNAME", "1.2.840.99999.4711"
TEXTS = {"PN": "^JANE", "LO": "", "SH": "", "ST": "", "LT": "", "UT": "", "UC": ""}
"""Kinds of elements that hold text, and what follows the planted name."""
STUDY = """
name: scans
data: {sources: [{reader: dicom, folder: scans}], size: 32}
teacher: {encoder_depth: 3, weights: none, training: {epochs: 1}}
student: {width: {int: [4, 6]}, depth: 2, convs_per_stage: 1}
distillation: {path: logits}
training: {epochs: 1}
search: {trials: 3, startup_trials: 2, executor: inline}
confirm: {folds: 2, students: 1}
"""


def plant(scan: Dataset) -> int:
    """Writes the planted name into every text of the dictionary, also in a nested item and a private element."""
    planted = 0
    for tag, (kind, multiplicity, _, retired, _) in DicomDictionary.items():
        fits = kind in TEXTS and not retired and multiplicity.startswith("1") and 0x00080000 <= tag < 0x00500000
        if fits and (keyword_for_tag(tag) not in scan or kind == "PN"):
            scan.add_new(tag, kind, f"{PLANTED}{TEXTS[kind]}")
            planted += 1
    item = Dataset()
    item.PersonName, item.InstitutionName = f"{PLANTED}^JOE", PLANTED
    scan.ReferringPhysicianIdentificationSequence = [item]
    scan.private_block(0x0019, PLANTED, create=True).add_new(1, "LO", PLANTED)
    return planted


def write_clips(root, *, patients=12, frames=2):
    """Clips with segmentations, in which every text names a patient."""
    for patient in range(patients):
        phantoms = [simulate(patient * frames + frame, seed=3) for frame in range(frames)]
        size = np.min([one.image.shape for one in phantoms], axis=0)
        pixels = np.stack([one.image[: size[0], : size[1]] for one in phantoms])
        masks = [one.mask[: size[0], : size[1]] for one in phantoms]
        uids = {"StudyInstanceUID": f"{PLANTED_UID}.{patient}", "SOPInstanceUID": f"{PLANTED_UID}.{patient}.1"}
        path = root / f"clip{patient}.dcm"
        scan = write_scan(path, pixels, PatientID=f"{PLANTED}{patient}", PixelSpacing=[0.2, 0.2], **uids)
        assert plant(scan) > 300
        saved(scan, path)
        parts = {(scan.SOPInstanceUID, place, "Lesion"): mask for place, mask in enumerate(masks, 1)}
        segments = write_segmentation(root / f"clip{patient}-seg.dcm", parts, PatientID=f"{PLANTED}{patient}")
        plant(segments)
        saved(segments, root / f"clip{patient}-seg.dcm")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips") / "scans"
    write_clips(root)
    return root


def test_init_finds_clips_and_their_patients(clips, tmp_path):
    found = inspect(clips, tmp_path / "home")
    rows = dict(found.rows())
    assert rows["reader"] == "dicom"
    assert rows["images"].startswith("24")
    assert rows["groups"] == "12, by the patient's identifier in the files"
    assert found.names == ("Lesion",)
    assert not any(PLANTED in value for value in rows.values())


@pytest.mark.slow
def test_no_text_of_a_scan_reaches_any_output(clips, tmp_path, monkeypatch, capfd, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", str(tmp_path / "home"))
    (tmp_path / "study.yaml").write_text(STUDY.replace("folder: scans", f"folder: {clips}"), encoding="utf-8")
    scan = str(clips / "clip0.dcm")
    for command in (
        ["check", "study.yaml"],
        ["data", "study.yaml"],
        ["run", "study.yaml"],
        ["front", "study.yaml", "--json"],
        ["confirm", "study.yaml"],
        ["report", "study.yaml"],
        ["pick", "study.yaml", "--out", "picked", "--no-latency"],
        ["test", "study.yaml", "--trial", "0"],
        ["evaluate", "picked", f"dicom={clips}"],
        ["predict", "picked", scan, "--out", "masks"],
    ):
        assert main(command) == 0, command
    assert {path.name for path in (tmp_path / "masks").iterdir()} >= {"clip0_0001_mask.png", "clip0_0002_mask.png"}
    shown = capfd.readouterr()
    places = {"the screen": (shown.out + shown.err).encode(), "the log": caplog.text.encode()}
    places |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places["the names of files"] = "".join(map(str, tmp_path.rglob("*"))).encode()
    assert len(places) > 30
    for secret in (PLANTED, PLANTED_UID, "^JANE"):
        assert [where for where, content in places.items() if secret.encode() in content] == []
