"""Files are complete or absent.

Authors
 * The iusp_plugin authors 2026
"""

import pytest

from iusp_plugin.files import replacing


def test_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "scores.json"
    with replacing(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_old_file_survives_a_failure(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half-way"):
        with replacing(path) as part:
            part.write_text("ne")
            raise RuntimeError("half-way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        with replacing(tmp_path / "none" / "a.json") as part:
            part.write_text("x")


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path):
    """The last to end wins; the part of neither is the other's."""
    path = tmp_path / "report.html"
    with replacing(path) as slow:
        slow.write_text("slow")
        with replacing(path) as quick:
            quick.write_text("quick")
        assert path.read_text() == "quick"
    assert path.read_text() == "slow"
    assert list(tmp_path.iterdir()) == [path]
