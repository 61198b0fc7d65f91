"""The table of names, fine values and coarse values.

Authors
 * The iusp_plugin authors 2026
"""

import numpy as np
import pytest

from iusp_plugin.metrics.dcase2019_task5_table import TagTable


def test_rows_move_with_their_names():
    values = np.random.default_rng(0).random((3, 37))
    fine, coarse = values[:, :29], values[:, 29:]
    table = TagTable.from_rows(["b", "c", "a"], fine, coarse)
    assert table.filenames == ("a", "b", "c")
    np.testing.assert_array_equal(table.fine, fine[[2, 0, 1]])
    np.testing.assert_array_equal(table.coarse, coarse[[2, 0, 1]])


def test_float32_becomes_float64_exactly():
    fine = np.full((1, 29), 0.1, dtype=np.float32)
    table = TagTable.from_rows(["a"], fine, np.zeros((1, 8), dtype=int))
    assert table.fine.dtype == table.coarse.dtype == np.float64
    assert table.fine[0, 0] == float(np.float32(0.1))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], r"fine has shape \(3, 29\); .* of the 2 filenames"),
        (["a", "b", "a"], "filenames holds 'a' twice; keep one row a file"),
    ],
)
def test_bad_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        TagTable.from_rows(names, np.zeros((3, 29)), np.zeros((3, 8)))


def test_bad_coarse_width_is_refused():
    with pytest.raises(ValueError, match=r"coarse has shape \(1, 29\); .* 8 c"):
        TagTable.from_rows(["a"], np.zeros((1, 29)), np.zeros((1, 29)))
