"""Reading annotation files, and the one clear error for each fault.

Authors
 * The iusp_plugin authors 2026
"""

import logging

import numpy as np
import pytest

from iusp_plugin.dataio.annotations import (
    PRESENCE_COLUMNS,
    join_annotations,
    read_annotations,
)
from tests.reference.tiny_release import (
    annotation,
    development_rows,
    evaluation_rows,
    write_annotations,
)


def _changed(row_index, **cells):
    """The development rows with some cells of one row changed."""
    rows = development_rows()
    rows[row_index] |= cells
    return rows


def test_rows_in_file_order(tmp_path):
    """Every column of every row arrives."""
    path = write_annotations(tmp_path / "a.csv", development_rows())
    rows = read_annotations(path)
    assert rows.presence.shape == (13, 37)
    assert rows.splits == ("train",) * 9 + ("validate",) * 4
    assert rows.annotator_ids.tolist()[:3] == [11, 12, 13]
    assert rows.sensors[-1] == "0"
    assert rows.presence[0].nonzero()[0].tolist() == [29, 30]


def test_byte_order_mark_and_crlf(tmp_path):
    """A file that went through a spreadsheet reads the same."""
    path = write_annotations(tmp_path / "a.csv", development_rows())
    other = tmp_path / "b.csv"
    content = path.read_bytes().replace(b"\n", b"\r\n")
    other.write_bytes(b"\xef\xbb\xbf" + content + b"\r\n")
    rows, others = read_annotations(path), read_annotations(other)
    np.testing.assert_array_equal(rows.presence, others.presence)
    assert rows.audio_filenames == others.audio_filenames


def test_proximity_columns_are_optional(tmp_path):
    """They are not used."""
    rows = [
        {k: v for k, v in row.items() if not k.endswith("_proximity")}
        for row in development_rows()
    ]
    path = write_annotations(tmp_path / "a.csv", rows)
    assert len(read_annotations(path).splits) == 13


def test_other_columns_are_ignored_with_a_note(tmp_path, caplog):
    """Later versions add columns on place and time."""
    rows = [row | {"latitude": "40.7"} for row in development_rows()]
    path = write_annotations(tmp_path / "a.csv", rows)
    with caplog.at_level(logging.INFO):
        read_annotations(path)
    assert "columns not used here: latitude" in caplog.text


@pytest.mark.parametrize("text", ["1", "1.0", "1.00", "+1"])
def test_presence_is_a_number(tmp_path, text):
    """The release prints both 1 and 1.0."""
    rows = _changed(2, **{PRESENCE_COLUMNS[4]: text})
    read = read_annotations(write_annotations(tmp_path / "a.csv", rows))
    assert read.presence[2, 4] == 1


@pytest.mark.parametrize(
    "cells, message",
    [
        (
            {PRESENCE_COLUMNS[4]: "2"},
            r"row 4: 2-1_rock-drill_presence='2' must be 0, 1 or -1",
        ),
        ({PRESENCE_COLUMNS[4]: ""}, r"2-1_rock-drill_presence='' must be"),
        ({PRESENCE_COLUMNS[4]: "nan"}, r"presence='nan' must be"),
        ({PRESENCE_COLUMNS[4]: "0.5"}, r"presence='0.5' must be"),
        ({"split": "valid"}, r"row 4: split='valid' .*mean 'validate'"),
        ({"split": "dev"}, r"split='dev' is unknown.*mean 'validate'"),
        ({"split": "Train"}, r"split='Train' is unknown.*mean 'train'"),
        ({"split": ""}, r"split='' is unknown.*Known: train, validate, test"),
        ({"annotator_id": "x"}, r"row 4: annotator_id='x' must be an integer"),
        ({"annotator_id": "1.5"}, r"annotator_id='1.5' must be an integer"),
        ({"annotator_id": "inf"}, r"annotator_id='inf' must be an integer"),
        ({"audio_filename": ""}, r"row 4: audio_filename='' must be a plain"),
        ({"audio_filename": "../a.wav"}, r"audio_filename='../a.wav' must"),
        (
            {"audio_filename": "01_000000.ogg"},
            r"01_000000.ogg and 01_000000.wav differ in their ending only",
        ),
    ],
)
def test_faulty_cells(tmp_path, cells, message):
    """The error names row, column, value and remedy."""
    path = write_annotations(tmp_path / "a.csv", _changed(2, **cells))
    with pytest.raises(ValueError, match=message):
        read_annotations(path)


@pytest.mark.parametrize("tags", [("1_engine",), ("8_dog",)])
def test_second_truth_row(tmp_path, tags):
    """Neither a differing nor a repeated truth row is accepted."""
    rows = development_rows()
    rows.append(annotation("validate", "00_000003.wav", 0, tags))
    path = write_annotations(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match="row 15: 00_000003.wav has a second"):
        read_annotations(path)


def test_missing_columns(tmp_path):
    """All are counted, five are named."""
    rows = [
        {k: v for k, v in row.items() if not k.startswith(("split", "8"))}
        for row in development_rows()
    ]
    path = write_annotations(tmp_path / "a.csv", rows)
    with pytest.raises(
        ValueError, match=r"lacks 3 columns: split, 8-1_.*, 8_dog_presence\."
    ):
        read_annotations(path)


def test_misspelt_tag_column(tmp_path):
    """A near name is offered instead of ignoring the tag."""
    rows = development_rows()
    for row in rows:
        row["8_dogs_presence"] = row.pop("8_dog_presence")
    path = write_annotations(tmp_path / "a.csv", rows)
    with pytest.raises(
        ValueError, match="'8_dogs_presence' names no tag.*'8_dog_presence'"
    ):
        read_annotations(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "has 0 lines"),
        (b"split,sensor_id\n", "has 1 lines"),
        (b"split,split\n1,2\n", "column 'split' occurs more than once"),
        (b"a,b\n1\n", "row 2 has 1 cells and the header 2"),
        (b"a,b\n\xff\xfe,1\n", "is not a UTF-8 CSV file"),
    ],
)
def test_broken_files(tmp_path, content, message):
    """What is no table at all."""
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_annotations(path)


def test_absent_file(tmp_path):
    """The path is named."""
    with pytest.raises(FileNotFoundError, match="a.csv does not exist"):
        read_annotations(tmp_path / "a.csv")


@pytest.mark.parametrize("split", ["test", "evaluate", "Eval", None])
def test_evaluation_file(tmp_path, split):
    """Without a split column, or with any name of the evaluation split."""
    rows = evaluation_rows()
    for row in rows:
        row["split"] = split
        if split is None:
            del row["split"]
    path = write_annotations(tmp_path / "a.csv", rows)
    assert read_annotations(path, only_split="test").splits == ("test",)


def test_evaluation_file_of_another_split(tmp_path):
    """Train rows would otherwise become test rows unseen."""
    path = write_annotations(tmp_path / "a.csv", development_rows())
    with pytest.raises(ValueError, match="row 2: split='train', but all rows"):
        read_annotations(path, only_split="test")


def test_join(tmp_path):
    """Rows of both files; one recording in both is refused."""
    dev = read_annotations(
        write_annotations(tmp_path / "dev.csv", development_rows())
    )
    other = read_annotations(
        write_annotations(tmp_path / "eval.csv", evaluation_rows())
    )
    rows = join_annotations({"dev.csv": dev, "eval.csv": other})
    assert rows.splits == dev.splits + ("test",)
    assert rows.presence.shape == (14, 37) and rows.annotator_ids[-1] == 0
    with pytest.raises(ValueError, match="01_000000.wav of split 'train' is i"):
        join_annotations({"a.csv": dev, "b.csv": dev})


def test_real_annotations(reference_task5):
    """Shape and annotators of the real file."""
    rows = read_annotations(reference_task5 / "annotations-dev.csv")
    assert rows.presence.shape == (10349, 37)
    assert (rows.annotator_ids == 0).sum() == 443
    assert (rows.presence[rows.annotator_ids >= 0] >= 0).all()
