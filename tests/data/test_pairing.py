"""Images find their masks in the layouts that people have."""

from __future__ import annotations

import pytest

from kdsearch.data.folder import read_folder
from kdsearch.data.pairing import pair_by_patterns
from kdsearch.errors import DataError
from tests.data.pictures import write_image, write_mask

LAYOUTS = {
    "mask beside its image": {"a.png": ["a_mask.png"], "b.jpg": ["b_mask.png"]},
    "several masks of an image": {"benign (1).png": ["benign (1)_mask.png", "benign (1)_mask_1.png"]},
    "numbered names with numbered masks": {"x_1.png": ["x_1_mask.png"], "x_2.png": ["x_2_mask.png"]},
    "mask named like a later image": {"x.png": ["x_mask.png"], "x_1.png": ["x_mask_1.png"]},
    "other words": {"a.png": ["a_seg.png"], "b.png": ["b-label.png"], "c.png": ["c GT.png"], "d.png": ["mask_d.png"]},
    "same number": {"Test_Image_7.png": ["mask_7.png"], "Test_Image_12.png": ["mask_12.png"]},
    "padded number": {"img/scan7.png": ["masks/m0007.png"], "img/scan8.png": ["masks/m0008.png"]},
    "sibling folders": {"images/a.png": ["masks/a.png"], "images/b.jpg": ["masks/b.bmp"]},
    "sibling folders, masks with a suffix": {
        "images/a.png": ["masks/a_mask.png"],
        "images/b.png": ["masks/b_mask.png"],
    },
    "deep folders": {"x/1/images/a.png": ["x/1/masks/a.png"], "x/2/images/a.png": ["x/2/masks/a.png"]},
    "folder beside its mask folder": {"train/a.png": ["trainannot/a.png"], "val/a.png": ["valannot/a.png"]},
    "images above their masks": {"a.png": ["GroundTruth/a.png"], "b.png": ["GroundTruth/b.png"]},
    "masks in one folder": {"2020/a.png": ["gt/a.png"], "2021/b.png": ["gt/b.png"]},
    "prefixes": {"Images/bus_01-l.png": ["Masks/mask_01-l.png"], "Images/bus_11-r.png": ["Masks/mask_11-r.png"]},
    "folder of everything": {
        "Set_with_GT/a.png": ["Set_with_GT/a_mask.png"],
        "Set_with_GT/b.png": ["Set_with_GT/b_mask.png"],
    },
    "nested BUSI": {
        "benign/images/benign (1).png": ["benign/masks/benign (1).png"],
        "malignant/images/malignant (1).png": ["malignant/masks/malignant (1)_mask.png"],
        "normal/images/normal (1).png": ["normal/mask/normal (1)_mask.png"],
    },
}


def _write(root, layout):
    for image, masks in layout.items():
        write_image(root / image)
        for mask in masks:
            write_mask(root / mask)
    return root


def _found(listing, root):
    return {
        entry.image.relative_to(root).as_posix(): [mask.relative_to(root).as_posix() for mask in entry.masks]
        for entry in listing.entries
    }


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_image_gets_its_masks(tmp_path, layout):
    listing = read_folder(_write(tmp_path, layout))
    assert _found(listing, tmp_path) == layout
    assert not listing.defects
    assert len({entry.id for entry in listing.entries}) == len(layout)


def test_folders_of_classes_are_labels(tmp_path):
    entries = read_folder(_write(tmp_path, LAYOUTS["nested BUSI"])).entries
    assert {entry.id: entry.label for entry in entries} == {
        "benign/benign (1)": "benign",
        "malignant/malignant (1)": "malignant",
        "normal/normal (1)": "normal",
    }
    assert {entry.group for entry in entries} == {None}


@pytest.mark.parametrize("folders", [["patient1", "patient2"], [f"case{number:03d}" for number in range(20)]])
def test_folders_of_patients_are_groups(tmp_path, folders):
    layout = {f"{name}/images/{n}.png": [f"{name}/masks/{n}.png"] for name in folders for n in (1, 2)}
    entries = read_folder(_write(tmp_path, layout)).entries
    assert {entry.group for entry in entries} == set(folders)
    assert {entry.label for entry in entries} == {None}


def test_folders_of_parts_are_a_split(tmp_path):
    layout = {f"{part}/images/{part}.png": [f"{part}/labels/{part}.png"] for part in ("train", "valid", "test")}
    entries = read_folder(_write(tmp_path, layout)).entries
    assert {entry.image.stem: entry.part for entry in entries} == {
        "train": "train",
        "valid": "validation",
        "test": "test",
    }
    assert {entry.label for entry in entries} == {None}


def test_files_without_a_counterpart_are_defects(tmp_path):
    _write(tmp_path, LAYOUTS["mask beside its image"])
    write_image(tmp_path / "lonely_3.png")
    write_mask(tmp_path / "other_3_mask.png")
    listing = read_folder(tmp_path)
    assert {defect.path.name: defect.problem for defect in listing.defects} == {
        "lonely_3.png": "has no mask",
        "other_3_mask.png": "has no image",
    }
    assert len(listing.entries) == 2


def test_equal_numbers_do_not_pair_files_with_different_names(tmp_path):
    layout = {"a1.png": ["a1_mask.png"], "b2.png": ["b2_mask.png"]}
    _write(tmp_path, layout)
    write_mask(tmp_path / "c3_mask.png")
    write_image(tmp_path / "d3.png")
    assert _found(read_folder(tmp_path), tmp_path) == layout


def test_two_images_of_one_name_are_named(tmp_path):
    layout = {"images/a.png": ["gt/a.png"], "images/b.png": ["gt/b.png"]}
    _write(tmp_path, layout)
    write_image(tmp_path / "images" / "a.jpg")
    listing = read_folder(tmp_path)
    assert _found(listing, tmp_path) == {"images/b.png": ["gt/b.png"]}
    problems = {(defect.path.as_posix().removeprefix(f"{tmp_path}/"), defect.problem) for defect in listing.defects}
    same = "has the same name as another image"
    assert problems == {("images/a.jpg", same), ("images/a.png", same), ("gt/a.png", "has no image")}


def test_linked_folders_are_read_and_circles_are_left(tmp_path):
    _write(tmp_path / "disk", {"images/a.png": ["labels/a.png"]})
    (tmp_path / "mine").mkdir()
    for name in ("images", "labels"):
        (tmp_path / "mine" / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "mine" / "images" / "round").symlink_to(tmp_path / "mine")
    assert [entry.id for entry in read_folder(tmp_path / "mine").entries] == ["a"]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    layout = LAYOUTS["mask beside its image"]
    _write(tmp_path, layout)
    write_image(tmp_path / ".cache" / "a.png")
    write_image(tmp_path / "._a.png")
    assert _found(read_folder(tmp_path), tmp_path) == layout


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no images and no masks"),
        (["a.png", "b.png"], "has 2 images and no masks; put images into images/"),
        (["a_mask.png"], "has no images and 1 mask"),
    ],
)
def test_folder_without_images_or_masks_says_what_is_expected(tmp_path, files, message):
    for file in files:
        write_image(tmp_path / file)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


def test_patterns_pair_what_names_do_not_tell(tmp_path):
    layout = {"scans/p1/s_a.png": ["truth/p1/left a.png", "truth/p1/right a.png"], "scans/p2/s_b.png": []}
    _write(tmp_path, layout)
    write_mask(tmp_path / "truth/p3/left c.png")
    listing = pair_by_patterns(tmp_path, "scans/p*/s_{name}.png", "truth/p*/* {name}.png")
    assert _found(listing, tmp_path) == {"scans/p1/s_a.png": layout["scans/p1/s_a.png"]}
    assert {defect.path.name: defect.problem for defect in listing.defects} == {
        "s_b.png": "has no mask",
        "left c.png": "has no image",
    }


def test_pattern_that_fits_nothing_is_named(tmp_path):
    _write(tmp_path, LAYOUTS["mask beside its image"])
    with pytest.raises(DataError, match=r"no files fit images: scans/\{name\}\.png, and 2 files fit masks: "):
        pair_by_patterns(tmp_path, "scans/{name}.png", "{name}_mask.png")


def test_table_with_a_mask_column_replaces_pairing(tmp_path):
    _write(tmp_path, {"x/1.png": ["y/9.png"], "x/2.png": [], "x/3.png": ["y/3.png"]})
    rows = ["x/1.png,y/9.png,p1,a,train", "x/2.png,,p2,b,val"]
    (tmp_path / "t.csv").write_text("image,mask,group,label,split\n" + "\n".join(rows) + "\n")
    entries = read_folder(tmp_path, csv="t.csv").entries
    assert [
        (entry.id, [mask.name for mask in entry.masks], entry.group, entry.label, entry.part) for entry in entries
    ] == [
        ("x/1", ["9.png"], "p1", "a", "train"),
        ("x/2", [], "p2", "b", "validation"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "x/1.png,y/1.png,,holdout",
            "t.csv: image 'x/1.png': unknown split 'holdout'; write train, validation or test",
        ),
        ("x/1.png,y/7.png,,", "image 'x/1.png': .*y/7.png does not exist"),
        ("x/1.png,,,", "column 'mask' is empty in every row"),
    ],
)
def test_table_that_cannot_be_right_is_refused(tmp_path, row, message):
    _write(tmp_path, {"x/1.png": ["y/1.png"]})
    (tmp_path / "t.csv").write_text(f"image,mask,label,split\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path, csv="t.csv")


def test_table_adds_groups_to_images_of_any_layout(tmp_path):
    _write(tmp_path, LAYOUTS["deep folders"])
    (tmp_path / "t.csv").write_text("image,group\nx/1/images/a.png,p\nx/2/images/a.png,q\n")
    assert [entry.group for entry in read_folder(tmp_path, csv="t.csv").entries] == ["p", "q"]
    (tmp_path / "t.csv").write_text("image,group\na.png,p\n")
    with pytest.raises(DataError, match="several images are called 'a.png'; write their paths below"):
        read_folder(tmp_path, csv="t.csv")
