"""Prediction files and ground truth: what is read, warned of, refused.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import logging

import numpy as np
import pytest

from iusp_plugin.dataio.taxonomy import ALL_TAGS, COARSE_TAGS
from iusp_plugin.metrics.dcase2019_task5_io import (
    read_predictions,
    read_truth,
    write_predictions,
)
from tests.reference.task5_small import (
    FILENAMES,
    levels,
    small_set,
    write_annotations,
)


@pytest.fixture
def rows(tmp_path):
    """The small set's prediction file as rows that a test may spoil."""
    parts = levels(small_set()[1])
    path = tmp_path / "good.csv"
    write_predictions(path, FILENAMES, parts["fine"], parts["coarse"])
    with open(path, newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def read(tmp_path):
    """Reads rows back through a file."""

    def write_and_read(rows, **kwargs):
        path = tmp_path / "p.csv"
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(rows)
        return read_predictions(path, **kwargs)

    return write_and_read


def test_round_trip_is_exact_and_sorted(tmp_path):
    draw = np.random.default_rng(0)
    fine, coarse = draw.random((3, 29)), draw.random((3, 8))
    path = tmp_path / "p.csv"
    write_predictions(path, ["b.wav", "c.wav", "a.wav"], fine, coarse)
    table = read_predictions(path)
    assert table.filenames == ("a.wav", "b.wav", "c.wav")
    np.testing.assert_array_equal(table.fine, fine[[2, 0, 1]])
    np.testing.assert_array_equal(table.coarse, coarse[[2, 0, 1]])
    assert list(tmp_path.iterdir()) == [path]


def test_written_form_is_the_official_one(tmp_path):
    path = tmp_path / "p.csv"
    write_predictions(path, ["a.wav"], np.full((1, 29), 0.25), np.ones((1, 8)))
    header = ",".join(["audio_filename", *ALL_TAGS])
    line = ",".join(["a.wav"] + 29 * ["0.25"] + 8 * ["1.0"])
    assert path.read_bytes().decode() == f"{header}\r\n{line}\r\n"


@pytest.mark.parametrize(
    ("names", "value", "message"),
    [
        (["a", "a"], 0.5, "filenames holds 'a' twice"),
        (["a", "b"], 1.5, "column 1-1_small-sounding-engine: 1.5 is no conf"),
        (["a", "b"], np.nan, "predictions of a, .*nan is no confidence"),
        (["a", "b"], -0.1, "-0.1 is no confidence; give a number from 0"),
        (["a"], 0.5, r"fine has shape \(2, 29\); give one row for each"),
    ],
)
def test_writer_refuses_what_could_not_be_scored(
    tmp_path, names, value, message
):
    path = tmp_path / "p.csv"
    with pytest.raises(ValueError, match=message):
        write_predictions(
            path, names, np.full((2, 29), value), np.zeros((2, 8))
        )
    assert not path.exists()


def test_any_order_of_rows_and_columns_and_extra_columns(rows, read):
    expected = read(rows)
    shuffled = [[*row[::-1], "note"] for row in [rows[0], *rows[:0:-1]]]
    table = read(shuffled)
    assert table.filenames == expected.filenames == tuple(sorted(FILENAMES))
    np.testing.assert_array_equal(table.fine, expected.fine)
    np.testing.assert_array_equal(table.coarse, expected.coarse)


def test_missing_column_is_zero_and_warned_of(rows, read, caplog):
    at = rows[0].index("6_music")
    table = read([row[:at] + row[at + 1 :] for row in rows])
    assert not table.coarse[:, 5].any()
    assert table.coarse[:, 4].any()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "lacks 1 tag columns, filled with zeros: 6_music." in caplog.text


def test_misspelt_column_is_zero_and_its_near_name_is_given(rows, read, caplog):
    rows[0][rows[0].index("6_music")] = "6_musik"
    assert not read(rows).coarse[:, 5].any()
    assert "zeros: 6_music (has '6_musik')." in caplog.text


def test_only_the_tags_asked_for_are_read(rows, read, caplog):
    at = rows[0].index("1-1_small-sounding-engine")
    rows[3][at] = "broken"
    table = read(rows, tags=COARSE_TAGS)
    assert not table.fine.any()
    assert table.coarse.any()
    assert caplog.text == ""
    with pytest.raises(ValueError, match="'broken' is no number"):
        read(rows)


def test_negative_values_are_kept_and_warned_of(rows, read, caplog):
    for row in rows[1:]:
        row[rows[0].index("8_dog")] = "-1.0"
    assert (read(rows).coarse[:, 7] == -1).all()
    assert "has negative values, which are never predicted" in caplog.text
    assert "in: 8_dog." in caplog.text


def test_missing_number_of_an_incomplete_tag_is_warned_of(rows, read, caplog):
    rows[1][rows[0].index("1-X_engine-of-uncertain-size")] = ""
    assert np.isnan(read(rows).fine).sum() == 1
    assert "missing numbers" in caplog.text
    assert "in: 1-X_engine-of-uncertain-size." in caplog.text


def test_repeated_row_names_line_and_file(rows, read):
    rows.append(rows[5])
    name = rows[5][0]
    with pytest.raises(ValueError, match=f"line 42: '{name}' has a row"):
        read(rows)


def test_unparsable_number_names_file_line_and_column(rows, read):
    rows[2][rows[0].index("8_dog")] = "0;5"
    with pytest.raises(
        ValueError, match=r"p.csv, line 3 \(.*wav\), column 8_dog: '0;5' is"
    ):
        read(rows)


def test_truth_takes_agreed_rows_as_they_stand(tmp_path):
    truth, _ = small_set()
    path = tmp_path / "annotations.csv"
    write_annotations(path, truth)
    table = read_truth(path)
    order = np.argsort(FILENAMES)
    assert table.filenames == tuple(sorted(FILENAMES))
    for level, part in levels(truth[order]).items():
        np.testing.assert_array_equal(getattr(table, level), part)


def test_truth_with_byte_order_mark_and_crlf(tmp_path):
    plain, other = tmp_path / "plain.csv", tmp_path / "other.csv"
    write_annotations(plain)
    content = plain.read_bytes().replace(b"\n", b"\r\n")
    other.write_bytes(b"\xef\xbb\xbf" + content)
    np.testing.assert_array_equal(
        read_truth(plain).fine, read_truth(other).fine
    )


def test_split_must_be_chosen_where_several_hold_truth(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    write_annotations(one, split="validate")
    write_annotations(two, 1 - small_set()[0], split="test")
    both = tmp_path / "both.csv"
    tail = two.read_text().split("\n", 1)[1]
    both.write_text(one.read_text() + tail)
    with pytest.raises(
        ValueError, match=r"several splits \(test, validate\); .*--split"
    ):
        read_truth(both)
    for split, path in (("validate", one), ("test", two)):
        np.testing.assert_array_equal(
            read_truth(both, split).coarse, read_truth(path).coarse
        )
    with pytest.raises(
        ValueError, match="split='train'; splits that have some: test, val"
    ):
        read_truth(both, "train")


def spoil(path, old, new):
    """Replace text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_truth_refuses_what_it_cannot_use(tmp_path):
    path = tmp_path / "annotations.csv"
    write_annotations(path)
    spoil(path, "8_dog_presence", "8_dog")
    with pytest.raises(ValueError, match="no column '8_dog_presence'. Did"):
        read_truth(path)
    write_annotations(path)
    spoil(path, ",0,", ",5,")
    with pytest.raises(ValueError, match="no ground truth .*some: none"):
        read_truth(path)
    truth, _ = small_set()
    truth[3, 0] = -1
    write_annotations(path, truth)
    with pytest.raises(
        ValueError, match="engine_presence: '-1.0' is no agreed label; give"
    ):
        read_truth(path)


def test_truth_refuses_a_file_agreed_on_twice(tmp_path):
    path = tmp_path / "annotations.csv"
    write_annotations(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[2]]) + "\n")
    with pytest.raises(ValueError, match=f"holds '{FILENAMES[0]}' twice"):
        read_truth(path)
