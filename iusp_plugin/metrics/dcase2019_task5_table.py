"""A table of the DCASE 2019 Task 5 tags: names, fine values, coarse values.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iusp_plugin.dataio.taxonomy import COARSE_TAGS, FINE_TAGS

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TagTable:
    """One value a file and tag; rows sorted by file name, names distinct.

    Arguments
    ---------
    filenames : tuple of str
        Names of the rows.
    fine : numpy.ndarray
        Values of the 29 fine tags in taxonomy order, (files, 29), float64.
    coarse : numpy.ndarray
        Values of the 8 coarse tags, (files, 8), float64.
    """

    filenames: tuple[str, ...]
    fine: FloatArray
    coarse: FloatArray

    @classmethod
    def from_rows(
        cls,
        filenames: Sequence[str],
        fine: npt.ArrayLike,
        coarse: npt.ArrayLike,
    ) -> "TagTable":
        """Check shapes and names, and sort the rows by name.

        Arguments
        ---------
        filenames : sequence of str
            Distinct names, in any order.
        fine, coarse : array_like
            Values, shapes (files, 29) and (files, 8).

        Returns
        -------
        TagTable
            The table.

        Raises
        ------
        ValueError
            If a shape does not fit or a name occurs twice.

        Example
        -------
        >>> table = TagTable.from_rows(["b", "a"], np.eye(2, 29), np.eye(2, 8))
        >>> table.filenames, table.coarse[:, 0].tolist()
        (('a', 'b'), [0.0, 1.0])
        """
        n = len(filenames)
        arrays = []
        for name, values, tags in (
            ("fine", fine, FINE_TAGS),
            ("coarse", coarse, COARSE_TAGS),
        ):
            array = np.asarray(values, dtype=np.float64)
            if array.shape != (n, len(tags)):
                raise ValueError(
                    f"{name} has shape {array.shape}; give one row for each "
                    f"of the {n} filenames and {len(tags)} columns."
                )
            arrays.append(array)
        order = sorted(range(n), key=filenames.__getitem__)
        names = tuple(filenames[i] for i in order)
        for first, second in zip(names, names[1:], strict=False):
            if first == second:
                raise ValueError(
                    f"filenames holds {first!r} twice; keep one row a file."
                )
        return cls(names, arrays[0][order], arrays[1][order])
