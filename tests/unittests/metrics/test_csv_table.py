"""Reading and writing of comma-separated text.

Authors
 * The iusp_plugin authors 2026
"""

import math

import pytest

from iusp_plugin.metrics.csv_table import (
    atomic_writer,
    parse_number,
    read_table,
)


def write(tmp_path, content):
    """A file of these bytes."""
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n",
        b"\xef\xbb\xbfa,b\r\n1,2\r\n",
        b"a,b\n\n1,2\n\n",
        b"a,b\n1,2",
    ],
)
def test_line_ends_byte_order_mark_and_blank_lines(tmp_path, content):
    table = read_table(write(tmp_path, content))
    assert table.columns == {"a": 0, "b": 1}
    assert [row for _, row in table.rows] == [["1", "2"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "table.csv is empty; its first line"),
        (b"a,a\n1,2\n", "two columns 'a'; remove or rename"),
        (b"a,b\n1,2\n3\n", "line 3: 1 cells under 2 column names"),
        (b"a,b\n1,2,3\n", "line 2: 3 cells under 2 column names"),
        ("a,b\n1,2\n".encode("utf-16"), "is not comma-separated UTF-8 text"),
        (b'a,b\n1,"' + b"x" * 200_000, "field larger than field limit"),
    ],
)
def test_bad_tables_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path, content))


def test_a_required_column_is_named_with_near_names(tmp_path):
    table = read_table(write(tmp_path, b"audio_file,b\n"))
    table.require("b")
    with pytest.raises(
        ValueError, match="no column 'audio_filename'. Did you mean 'audio_fi"
    ):
        table.require("b", "audio_filename")


@pytest.mark.parametrize("text", ["", "  ", "nan", "NaN", "NA", "null"])
def test_missing_numbers(text):
    assert math.isnan(parse_number(text, "line 2", "c"))


@pytest.mark.parametrize("text", ["0,5", "1_0", "abc", "0.5.1", "--1"])
def test_unparsable_numbers_are_named(text):
    with pytest.raises(ValueError, match=f"line 2, column c: '{text}' is no"):
        parse_number(text, "line 2", "c")


def test_numbers_keep_every_digit():
    assert parse_number(" 0.1666666666666666574 ", "", "") == 1 / 6
    assert parse_number("1e-3", "", "") == 0.001


def test_atomic_writer_leaves_one_complete_file(tmp_path):
    path = tmp_path / "out.txt"
    with atomic_writer(path) as file:
        file.write("one\n")
        file.flush()
        assert not path.exists()
    assert path.read_text() == "one\n"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_writer_keeps_the_old_file_after_a_failure(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"):
        with atomic_writer(path) as file:
            file.write("new")
            raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
