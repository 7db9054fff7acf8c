"""Published layouts, made small."""

from __future__ import annotations

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.config.sources import FolderSource, PublishedSource
from kdsearch.data.cache import load_dataset
from kdsearch.data.folder import read_folder
from kdsearch.data.published import IMAGES, read_breast, read_busbra, read_busi, read_udiat
from kdsearch.data.source import check_tables
from kdsearch.errors import DataError
from tests.data.pictures import write_image, write_mask


def _busi(root):
    for label in ("benign", "malignant", "normal"):
        write_image(root / label / f"{label} (1).png")
        write_mask(root / label / f"{label} (1)_mask.png")
    write_mask(root / "benign" / "benign (1)_mask_1.png")
    write_image(root / "benign" / "benign (11).png")
    write_mask(root / "benign" / "benign (11)_mask.png")
    return root


def test_busi_collects_all_masks_of_an_image_and_no_other_s(tmp_path):
    listing = read_busi(_busi(tmp_path / "Dataset_BUSI_with_GT"))
    masks = {entry.id: [path.name for path in entry.masks] for entry in listing.entries}
    assert masks["benign (1)"] == ["benign (1)_mask.png", "benign (1)_mask_1.png"]
    assert masks["benign (11)"] == ["benign (11)_mask.png"]
    assert {entry.label for entry in listing.entries} == {"benign", "malignant", "normal"}


def test_busi_is_found_inside_the_unpacked_folder(tmp_path):
    _busi(tmp_path / "Dataset_BUSI_with_GT")
    assert len(read_busi(tmp_path).entries) == 4


def test_busi_image_without_mask_is_a_defect(tmp_path):
    _busi(tmp_path)
    write_image(tmp_path / "normal" / "normal (2).png")
    assert [str(defect).split(": ")[1] for defect in read_busi(tmp_path).defects] == [
        "has no mask (normal (2)_mask.png)"
    ]


def test_missing_folder_says_what_belongs_there_and_where_to_get_it(tmp_path):
    with pytest.raises(
        DataError, match="is not a folder; it must contain benign, malignant, normal; get the data: BUSI"
    ):
        read_busi(tmp_path / "absent")


def test_udiat_pairs_by_name_and_reads_class_lists(tmp_path):
    for number in ("000001", "000002"):
        write_image(tmp_path / "original" / f"{number}.png")
        write_mask(tmp_path / "GT" / f"{number}.png")
    (tmp_path / "Benign.txt").write_text("000001\n")
    (tmp_path / "Malignant.txt").write_text("2\n")
    assert [(entry.id, entry.label) for entry in read_udiat(tmp_path).entries] == [
        ("000001", "benign"),
        ("000002", "malignant"),
    ]


def test_busbra_keeps_the_patient_and_the_class(tmp_path):
    for name in ("0001-l", "0001-r", "0002-l"):
        write_image(tmp_path / "Images" / f"bus_{name}.png")
        write_mask(tmp_path / "Masks" / f"mask_{name}.png")
    rows = ["bus_0001-l,1,benign", "bus_0001-r,1,benign", "bus_0002-l,2,malignant"]
    (tmp_path / "bus_data.csv").write_text("ID,Case,Pathology\n" + "\n".join(rows) + "\n")
    listing = read_busbra(tmp_path)
    assert [(entry.group, entry.label) for entry in listing.entries] == [
        ("1", "benign"),
        ("1", "benign"),
        ("2", "malignant"),
    ]
    assert not listing.defects


def test_busbra_table_without_the_patient_is_refused(tmp_path):
    write_image(tmp_path / "Images" / "bus_1.png")
    write_mask(tmp_path / "Masks" / "mask_1.png")
    (tmp_path / "bus_data.csv").write_text("ID,Cases,Pathology\nbus_1,1,benign\n")
    with pytest.raises(DataError, match="has no column 'Case'; .* did you mean 'Cases'"):
        read_busbra(tmp_path)


def _breast(root, rows):
    sheet = Workbook()
    sheet.active.append(["CaseID", "Image_filename", "Classification"])
    for row in rows:
        sheet.active.append(row)
    sheet.save(root / "clinical.xlsx")
    for _, image, _ in rows:
        write_image(root / IMAGES / image, mode="RGBA")


def test_breast_takes_the_tumour_and_leaves_other_structures(tmp_path):
    _breast(tmp_path, [(1, "case001.png", "benign"), (2, "case002.png", "normal"), (3, "case003.png", "malignant")])
    write_mask(tmp_path / IMAGES / "case001_tumor.png")
    write_mask(tmp_path / IMAGES / "case001_other1.png")
    listing = read_breast(tmp_path)
    assert {entry.id: [path.name for path in entry.masks] for entry in listing.entries} == {
        "case001": ["case001_tumor.png"],
        "case002": [],
    }
    assert [defect.path.name for defect in listing.defects] == ["case003.png"]


def test_breast_without_spreadsheet_is_refused(tmp_path):
    write_image(tmp_path / IMAGES / "case001.png")
    with pytest.raises(DataError, match="has no clinical spreadsheet"):
        read_breast(tmp_path)


def test_folder_pairs_across_formats_and_reads_its_table(tmp_path):
    write_image(tmp_path / "images" / "a.jpg")
    write_image(tmp_path / "images" / "b.tiff")
    for name in ("a", "b"):
        write_mask(tmp_path / "masks" / f"{name}.bmp")
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    (tmp_path / "table.csv").write_text("image,group,label\na.jpg,p1,benign\nb,p2,malignant\n")
    entries = read_folder(tmp_path, csv="table.csv").entries
    assert [(entry.id, entry.group, entry.label) for entry in entries] == [
        ("a", "p1", "benign"),
        ("b", "p2", "malignant"),
    ]


def test_folder_reports_what_does_not_pair(tmp_path):
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / "images" / "b.png")
    write_image(tmp_path / "images" / "b.bmp")
    write_mask(tmp_path / "masks" / "b.png")
    write_mask(tmp_path / "masks" / "c.png")
    assert not read_folder(tmp_path).entries
    problems = [(defect.path.name, defect.problem.split(" ")[1]) for defect in read_folder(tmp_path).defects]
    assert problems == [("a.png", "no"), ("b.png", "the"), ("c.png", "no")]


def test_image_that_the_table_leaves_out_is_a_defect(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.png")
        write_mask(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "table.csv").write_text("image,group\na.png,p1\n")
    listing = read_folder(tmp_path, csv="table.csv")
    assert [entry.id for entry in listing.entries] == ["a"]
    assert "its patient is not known" in listing.defects[0].problem


def test_folder_table_that_names_strangers_is_refused(tmp_path):
    write_image(tmp_path / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a.png")
    (tmp_path / "table.csv").write_text("image,group\nz.png,p1\n")
    with pytest.raises(DataError, match="lists images that do not exist: z"):
        read_folder(tmp_path, csv="table.csv")


@pytest.mark.realdata
def test_real_busi_has_its_published_shape(real_data):
    listing = read_busi(real_data / "busi")
    labels = [entry.label for entry in listing.entries]
    assert [labels.count(label) for label in ("benign", "malignant", "normal")] == [437, 210, 133]
    assert sum(len(entry.masks) for entry in listing.entries) == 798
    assert sum(len(entry.masks) > 1 for entry in listing.entries) == 17
    assert not listing.defects


@pytest.mark.realdata
def test_real_breast_has_its_published_shape(real_data):
    listing = read_breast(real_data / "breast")
    labels = [entry.label for entry in listing.entries]
    assert [labels.count(label) for label in ("benign", "malignant", "normal")] == [154, 98, 4]
    assert [entry.id for entry in listing.entries if not entry.masks] == ["case045", "case061", "case209", "case213"]


def test_palette_image_in_a_folder_is_listed(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).convert("P").save(tmp_path / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a.png", shape=(8, 8))
    assert len(read_folder(tmp_path).entries) == 1


def _pairs(root, *names):
    for name in names:
        write_image(root / "images" / f"{name}.png")
        write_mask(root / "masks" / f"{name}.png")


def _table(root, text, encoding="utf-8"):
    (root / "table.csv").write_text(text, encoding=encoding)


def test_names_that_look_the_same_are_the_same(tmp_path):
    """macOS takes letters and accents apart."""
    composed, apart = "\u00e4 1", "a\u0308 1"
    write_image(tmp_path / "images" / f"{apart}.png")
    write_mask(tmp_path / "masks" / f"{composed}.png")
    _table(tmp_path, f"image,group\n{composed}.png,p1\n")
    listing = read_folder(tmp_path, csv="table.csv")
    assert [(entry.id, entry.group) for entry in listing.entries] == [(apart, "p1")]
    assert not listing.defects


def test_dot_in_a_name_does_not_end_it(tmp_path):
    _pairs(tmp_path, "P1.1", "P1.2")
    _table(tmp_path, "image,group\nP1.1,a\nimages/P1.2.png,b\n")
    assert [entry.group for entry in read_folder(tmp_path, csv="table.csv").entries] == ["a", "b"]


def test_hidden_files_are_passed_over(tmp_path):
    _pairs(tmp_path, "a", "._a")
    assert [entry.id for entry in read_folder(tmp_path).entries] == ["a"]
    assert not read_folder(tmp_path).defects


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group,label,image\np1,benign,a\np99\n", r"table.csv:3: column 'image' is empty; fill it in or remove"),
        ("image,group\na,p1\n,p2\n", r"table.csv:3: column 'image' is empty"),
        ("Image,Group\na,p1\n", "has no column 'image'; its columns are Image, Group; rename 'Image' to 'image'"),
        ("image;group\na;p1\n", "has no column 'image'; its columns are image;group; separate the columns with commas"),
        ("image,group\na,p1\na,p2\n", "table.csv:3: duplicate image 'a'; remove one"),
    ],
)
def test_table_that_cannot_be_read_says_what_to_do(tmp_path, text, message):
    _pairs(tmp_path, "a")
    _table(tmp_path, text)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path, csv="table.csv")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_table_of_another_encoding_says_to_save_it_as_utf_8(tmp_path, encoding):
    _pairs(tmp_path, "a")
    _table(tmp_path, "image,group\na,M\u00fcller\n", encoding)
    with pytest.raises(DataError, match="table.csv: is not UTF-8 .*; save the table as CSV in UTF-8"):
        read_folder(tmp_path, csv="table.csv")


def test_empty_rows_of_a_spreadsheet_are_passed_over(tmp_path):
    _pairs(tmp_path, "a")
    _table(tmp_path, "image,group,label\na,p1,benign\n,,\n,,\n")
    assert len(read_folder(tmp_path, csv="table.csv").entries) == 1


def _config(root, **given):
    source = {"reader": "folder", "folder": str(root), "csv": "table.csv"} | given
    return DataConfig(sources=(FolderSource.model_validate(source),))


@pytest.mark.parametrize(
    "column",
    ["patient", "Patient", "patient_id", "PatientID", "Group", "subject", "case no", "Case", "groups", "id_patient"],
)
def test_column_that_seems_to_hold_groups_must_be_renamed_or_dismissed(tmp_path, column):
    _table(tmp_path, f"image,{column}\na,p1\n")
    with pytest.raises(DataError, match=rf"column '{column}' is not read, .*rename it to 'group'.*ignore_columns"):
        check_tables(_config(tmp_path))
    assert check_tables(_config(tmp_path, ignore_columns=(column,))) == []


def test_other_columns_that_are_not_read_are_named(tmp_path):
    _table(tmp_path, "image,group,age,birads,case type\na,p1,40,2,x\n")
    (line,) = check_tables(_config(tmp_path))
    assert "ignored columns: age, birads, case type; kdsearch reads image, mask, group, label, split" in line


def test_two_rows_of_one_image_must_agree(tmp_path):
    _table(tmp_path, "image,group\na.png,p1\na.jpg,p2\n")
    with pytest.raises(
        DataError, match="rows 'a.png' and 'a.jpg' describe the same image but differ in group or label"
    ):
        check_tables(_config(tmp_path))
    _table(tmp_path, "image,group\na.png,p1\na.jpg,p1\n")
    assert check_tables(_config(tmp_path)) == []


def test_busi_in_another_layout_says_what_is_there_and_what_is_wanted(tmp_path):
    for label in ("benign", "malignant", "normal"):
        write_image(tmp_path / label / "images" / f"{label} (1).png")
        write_mask(tmp_path / label / "mask" / f"{label} (1)_mask.png")
    config = DataConfig(sources=(PublishedSource(reader="busi", folder=str(tmp_path)),))
    with pytest.raises(DataError, match=r"busi: no usable image in .*benign, .*expected NAME .*subfolders"):
        load_dataset(config, tmp_path / "home")
