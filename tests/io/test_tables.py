"""Cohort and pairs tables: what is read, and one clear line for everything that is wrong."""

from pathlib import Path

import pytest

from r2reg.errors import TableError
from r2reg.io.tables import is_pairs, read_cohort, read_pairs


@pytest.fixture
def folder(tmp_path):
    for name in "abcdefghijklmnopqrstuvwxyz":
        (tmp_path / f"{name}.nii").touch()
    return tmp_path


def table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_cohort_with_all_columns(folder):
    path = table(
        folder,
        "subject,image,labels,mask,group,split\n"
        "p1,a.nii,b.nii,,x,train\n"
        "p1,c.nii,,d.nii,x,train\n"
        "\n"
        "p2,e.nii,,,y,val\n"
        "p3,f.nii,,,y,test\n",
    )
    first, second, third, fourth = read_cohort(path)
    assert (first.image, first.labels, first.mask) == (folder / "a.nii", folder / "b.nii", None)
    assert second.mask == folder / "d.nii"
    assert [r.subject for r in (first, second, third)] == ["p1", "p1", "p2"]
    assert [r.group for r in (first, third)] == ["x", "y"]
    assert [r.split for r in (first, second, third, fourth)] == ["train", "train", "val", "test"]
    assert [r.line for r in (first, second, third)] == [2, 3, 5]


def test_byte_order_mark_and_spaces_are_harmless(folder):
    path = folder / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfimage , split\n a.nii , train\nb.nii,train\n")
    assert [r.image for r in read_cohort(path)] == [folder / "a.nii", folder / "b.nii"]


@pytest.mark.parametrize(("count", "held_out"), [(2, 0), (3, 1), (10, 1), (20, 2)])
def test_default_split_holds_out_the_last_tenth(folder, count, held_out):
    names = [f"{c}.nii" for c in "abcdefghijklmnopqrstuvwxyz"[:count]]
    splits = [r.split for r in read_cohort(table(folder, "image\n" + "\n".join(names)))]
    assert splits == ["train"] * (count - held_out) + ["val"] * held_out


def test_default_split_keeps_a_person_together(folder):
    rows = ["a.nii,p1", "b.nii,p3", "c.nii,p2", "d.nii,p3"]
    # Persons in the order of their first row: p1, p3, p2; the last is held out.
    splits = [r.split for r in read_cohort(table(folder, "image,subject\n" + "\n".join(rows)))]
    assert splits == ["train", "train", "val", "train"]


def test_labels_alone_are_enough_where_images_are_painted(folder):
    rows = read_cohort(table(folder, "labels\na.nii\nb.nii\n"), required=("labels",))
    assert [(r.image, r.labels) for r in rows] == [(None, folder / "a.nii"), (None, folder / "b.nii")]


def test_pairs(folder):
    path = table(folder, "moving,fixed,moving_points,id,split\na.nii,b.nii,c.nii,one,train\nb.nii,a.nii,,,val\n")
    assert is_pairs(path)
    one, two = read_pairs(path)
    assert (one.id, one.moving, one.fixed, one.moving_points) == (
        "one",
        *(folder / f"{n}.nii" for n in "abc"),
    )
    assert (two.id, two.split, two.moving_points) == ("pair_0002", "val", None)


def test_pairs_need_only_one_row(folder):
    (pair,) = read_pairs(table(folder, "moving,fixed\na.nii,b.nii\n"))
    assert pair.split == "train"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("image\n", "has a header and no rows"),
        ("image,labls\na.nii,b.nii\n", "unknown column 'labls'; known are image, labels, mask"),
        ("labels\na.nii\nb.nii\n", "no column image; the header reads labels"),
        ("image,image\na.nii,b.nii\n", "column image stands twice"),
        ("image\na.nii\nmissing.nii\n", "line 3: image .*missing.nii does not exist"),
        ("image,split\na.nii,train\n,train\n", "line 3 has no image"),
        ("image\na.nii\nb.nii\n./a.nii\n", "line 4 repeats line 2"),
        ("image,split\na.nii,train\nb.nii,trian\n", "line 3: split must be one of train, val, test.*'trian'"),
        ("image,split\na.nii,train\nb.nii,\n", "line 3: split must be one of"),
        ("image\na.nii,b.nii\nb.nii\n", "line 2 has 2 cells for 1 columns"),
        ("image,split\na.nii,train\nb.nii,val\n", "1 training row; a pair needs two images"),
        ("image\na.nii\n", "1 training row;"),
        ('image\n"a.nii\n', "is not a CSV file"),
    ],
)
def test_bad_cohort(folder, text, message):
    path = table(folder, text)
    with pytest.raises(TableError, match=message) as caught:
        read_cohort(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("moving\na.nii\n", "no column fixed"),
        ("moving,fixed,image\na.nii,b.nii,c.nii\n", "unknown column 'image'; known are moving, fixed"),
        ("moving,fixed\na.nii,b.nii\na.nii,b.nii\n", "line 3 repeats line 2"),
        ("moving,fixed,id\na.nii,b.nii,x\nb.nii,a.nii,x\n", "line 3 repeats the id 'x' of line 2"),
    ],
)
def test_bad_pairs(folder, text, message):
    with pytest.raises(TableError, match=message):
        read_pairs(table(folder, text))


def test_files_that_are_no_tables(folder):
    (folder / "binary.csv").write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(TableError, match="not a text file in UTF-8"):
        read_cohort(folder / "binary.csv")
    with pytest.raises(TableError, match="no such file"):
        read_cohort(folder / "nowhere.csv")
    with pytest.raises(TableError, match="is a folder"):
        read_cohort(folder)
