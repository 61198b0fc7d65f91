"""Rules that turn the annotations of a clip into its target vector.

The truth row (``annotator_id`` 0) wins under every rule. Without one:

* ``any`` (the official rule): positive where the sum of presence over all
  rows of the clip is above 0. A team member's -1 is subtracted, as in the
  official code; the 2019 development files never reach that case.
* ``majority``: positive where more than half of the volunteers said yes.
* ``mean``: the volunteers' mean presence, a number in [0, 1].
* ``each``: every volunteer row is an example of its own (the way of the 2019
  winner), in the train split only.

Evaluation splits need a truth row for every clip, whatever the rule.

Authors
 * The iusp_plugin authors 2026
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iusp_plugin.checks import check_choice, first_five
from iusp_plugin.dataio.annotations import SPLITS, Annotations
from iusp_plugin.dataio.taxonomy import ALL_TAGS, COARSE_TAGS, FINE_TAGS

TARGET_RULES = ("any", "majority", "mean", "each")

_COARSE2 = ALL_TAGS.index("2_machinery-impact")
_FINE2 = [k for k, tag in enumerate(FINE_TAGS) if tag.startswith("2-")]


@dataclass(frozen=True)
class Example:
    """One training or evaluation example.

    Arguments
    ---------
    example_id : str
        Stem of the file name; under the rule ``each`` followed by
        ``@<annotator_id>`` (and ``@k`` for that annotator's k-th row). Where
        an earlier split has a clip of that name, the stem is followed by
        ``@validate`` or ``@test``.
    audio_filename : str
        The recording, as named in the annotations.
    split : str
        train, validate or test.
    sensor : str
        The sensor, as named in the annotations.
    targets : np.ndarray
        Floats in [0, 1] [37]: 29 fine tags, 8 coarse tags.
    """

    example_id: str
    audio_filename: str
    split: str
    sensor: str
    targets: np.ndarray

    @property
    def fine(self) -> list[float]:
        """Targets of the 29 fine tags, in taxonomy order."""
        return self.targets[: len(FINE_TAGS)].tolist()

    @property
    def coarse(self) -> list[float]:
        """Targets of the 8 coarse tags, in taxonomy order."""
        return self.targets[-len(COARSE_TAGS) :].tolist()


def compute_targets(
    annotations: Annotations,
    target_rule: str = "any",
    repair_coarse2: bool = False,
) -> list[Example]:
    """The examples of all splits, ascending by file name.

    Arguments
    ---------
    annotations : Annotations
        Checked rows, see ``read_annotations``.
    target_rule : str
        any, majority, mean or each; see the head of this module.
    repair_coarse2 : bool
        Replace column ``2_machinery-impact`` by the maximum over all ``2-*``
        tags, row by row and before the rule. Figures are then not comparable
        with published ones.

    Returns
    -------
    list of Example
        Examples of one clip keep the order of their rows.

    Raises
    ------
    ValueError
        For an unknown rule, a validate or test clip without a truth row, or a
        train clip without rows that the rule could use.

    Example
    -------
    >>> votes = np.zeros((3, 37), dtype=np.int8)
    >>> votes[0, 0] = 1
    >>> rows = Annotations(
    ...     ("train",) * 3, ("7",) * 3, ("a.wav",) * 3, np.arange(1, 4), votes
    ... )
    >>> compute_targets(rows)[0].fine[0]
    1.0
    >>> compute_targets(rows, "majority")[0].fine[0]
    0.0
    >>> [e.example_id for e in compute_targets(rows, "each")]
    ['a@1', 'a@2', 'a@3']
    """
    check_choice("target_rule", target_rule, TARGET_RULES)
    presence = annotations.presence
    if repair_coarse2:
        presence = presence.copy()
        presence[:, _COARSE2] = presence[:, _FINE2].max(axis=1)
    rows_of = defaultdict(list)
    keys = zip(annotations.audio_filenames, annotations.splits, strict=True)
    for row, key in enumerate(keys):
        rows_of[key].append(row)
    _check_truth(annotations, rows_of)
    # Ids are unique over all splits: teacher outputs are kept by id.
    first_split: dict[str, str] = {}
    for name, split in sorted(rows_of, key=lambda key: SPLITS.index(key[1])):
        first_split.setdefault(Path(name).stem, split)
    examples = []
    for name, split in sorted(rows_of):
        rows = np.array(rows_of[name, split])
        votes = _apply_rule(
            name, annotations.annotator_ids[rows], presence[rows], target_rule
        )
        stem = Path(name).stem
        if split != first_split[stem]:
            stem = f"{stem}@{split}"
        sensor = annotations.sensors[rows[0]]
        examples += [
            Example(stem + suffix, name, split, sensor, targets)
            for suffix, targets in votes
        ]
    return examples


def _check_truth(
    annotations: Annotations, rows_of: dict[tuple[str, str], list[int]]
) -> None:
    """Every clip of an evaluation split has a truth row."""
    for split in ("validate", "test"):
        lacking = [
            name
            for (name, of_split), rows in sorted(rows_of.items())
            if of_split == split
            and not np.any(annotations.annotator_ids[rows] == 0)
        ]
        if lacking:
            raise ValueError(
                f"{len(lacking)} files of split {split!r} have no truth row "
                f"(annotator_id 0): {first_five(lacking)}. Add their truth "
                "or drop them from the annotation file."
            )


def _apply_rule(
    name: str, annotators: np.ndarray, presence: np.ndarray, rule: str
) -> list[tuple[str, np.ndarray]]:
    """Suffixes of the example ids and targets of one clip's examples."""
    truth = annotators == 0
    if truth.any():
        return [("", (presence[truth][0] > 0).astype(float))]
    if rule == "any":
        # A sum of int8 would wrap around with 128 rows or more.
        total = presence.sum(axis=0, dtype=np.int64)
        return [("", (total > 0).astype(float))]
    volunteers = annotators > 0
    if not volunteers.any():
        raise ValueError(
            f"{name} has neither a truth row nor a volunteer's, so "
            f"target_rule={rule!r} gives no target. Use target_rule='any' or "
            "drop the file from the annotation file."
        )
    votes = presence[volunteers]
    if rule == "each":
        return _one_example_a_row(annotators[volunteers], votes)
    # A volunteer who did not label a tag (-1) does not vote on it.
    voters = np.maximum((votes >= 0).sum(axis=0), 1)
    mean = (votes > 0).sum(axis=0) / voters
    if rule == "majority":
        return [("", (mean > 0.5).astype(float))]
    return [("", mean)]


def _one_example_a_row(
    annotators: np.ndarray, votes: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """Each volunteer's row by itself, numbered where one has several."""
    seen: Counter[int] = Counter()
    examples = []
    for annotator, vote in zip(annotators.tolist(), votes, strict=True):
        seen[annotator] += 1
        again = f"@{seen[annotator]}" if seen[annotator] > 1 else ""
        suffix = f"@{annotator}{again}"
        examples.append((suffix, (vote > 0).astype(float)))
    return examples


def serialize_targets(examples: Iterable[Example]) -> bytes:
    """The canonical bytes of binary targets, for hashes.

    A header line (``audio_filename``, the 29 fine and 8 coarse names), then a
    line a clip, ascending by name, of 37 times 0 or 1; ASCII, LF.

    Arguments
    ---------
    examples : iterable of Example
        One example a clip.

    Returns
    -------
    bytes
        The serialisation; hash it with SHA-256.

    Raises
    ------
    ValueError
        If targets are not binary or a clip occurs twice.

    Example
    -------
    >>> example = Example("a", "a.wav", "train", "7", np.eye(37)[0])
    >>> serialize_targets([example]).splitlines()[1][:12]
    b'a.wav,1,0,0,'
    """
    lines = [",".join(("audio_filename", *ALL_TAGS))]
    ordered: Sequence[Example] = sorted(
        examples, key=lambda e: e.audio_filename.encode()
    )
    names = [example.audio_filename for example in ordered]
    for example in ordered:
        if not np.isin(example.targets, (0.0, 1.0)).all():
            raise ValueError(
                f"Targets of {example.audio_filename} are not 0 or 1. "
                "Serialise targets of the rules 'any' or 'majority'."
            )
        cells = (str(int(value)) for value in example.targets)
        lines.append(",".join((example.audio_filename, *cells)))
    if len(set(names)) < len(names):
        raise ValueError(
            "A clip occurs twice. Serialise targets of the rules 'any' or "
            "'majority', which give one example a clip."
        )
    return ("\n".join(lines) + "\n").encode("ascii")
