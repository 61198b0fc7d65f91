"""The target rules against hand-made votes and the official targets.

Authors
 * The iusp_plugin authors 2026
"""

import hashlib
import json

import numpy as np
import pytest

from iusp_plugin.dataio.annotations import Annotations, read_annotations
from iusp_plugin.dataio.targets import (
    TARGET_RULES,
    Example,
    compute_targets,
    serialize_targets,
)
from iusp_plugin.dataio.taxonomy import ALL_TAGS


def _rows(*votes, split="train", name="07_000001.wav"):
    """Rows of one clip: (annotator, presence of the first tags)."""
    presence = np.zeros((len(votes), 37), dtype=np.int8)
    for row, (_, values) in enumerate(votes):
        presence[row, : len(values)] = values
    num = len(votes)
    return Annotations(
        (split,) * num,
        ("7",) * num,
        (name,) * num,
        np.array([annotator for annotator, _ in votes]),
        presence,
    )


def _joined(*parts):
    """Rows of several clips."""
    return Annotations(
        sum((p.splits for p in parts), ()),
        sum((p.sensors for p in parts), ()),
        sum((p.audio_filenames for p in parts), ()),
        np.concatenate([p.annotator_ids for p in parts]),
        np.concatenate([p.presence for p in parts]),
    )


CROWD = ((11, (1, 1, 1, 0)), (12, (1, 1, 0, 0)), (13, (1, 0, 0, 0)))


@pytest.mark.parametrize(
    "rule, expected",
    [
        ("any", [1, 1, 1, 0]),
        ("majority", [1, 1, 0, 0]),
        ("mean", [1, 2 / 3, 1 / 3, 0]),
    ],
)
def test_rules_on_three_volunteers(rule, expected):
    """Three, two, one and no vote of three."""
    (example,) = compute_targets(_rows(*CROWD), rule)
    assert example.fine[:4] == pytest.approx(expected)
    assert len(example.fine) == 29 and len(example.coarse) == 8
    assert example.example_id == "07_000001" and example.sensor == "7"


def test_half_is_no_majority():
    """More than half is asked for."""
    rows = _rows((11, (1,)), (12, (0,)))
    assert compute_targets(rows, "majority")[0].fine[0] == 0.0


@pytest.mark.parametrize("rule", TARGET_RULES)
def test_truth_wins(rule):
    """Under every rule, and whatever the crowd says."""
    rows = _rows(*CROWD, (0, (0, 0, 0, 1)), (-1, (1, 1, 1, 1)))
    (example,) = compute_targets(rows, rule)
    assert example.fine[:4] == [0, 0, 0, 1]


def test_any_is_a_sum():
    """A team member's -1 is subtracted, as in the official code."""
    rows = _rows((11, (1, 1)), (-1, (-1, 0)))
    assert compute_targets(rows)[0].fine[:2] == [0.0, 1.0]


def test_many_rows_do_not_wrap_around():
    """200 votes are more than an int8 holds."""
    rows = _rows(*((k, (1,)) for k in range(1, 201)))
    assert compute_targets(rows)[0].fine[0] == 1.0


def test_unlabelled_tags_do_not_vote():
    """The mean is over those who labelled the tag."""
    rows = _rows((11, (1, -1)), (12, (-1, -1)))
    assert compute_targets(rows, "mean")[0].fine[:2] == [1.0, 0.0]


def test_each_row_is_an_example():
    """Ids stay unique when an annotator has several rows."""
    rows = _rows((11, (1,)), (12, (0,)), (11, (0, 1)), (-2, (1, 1)))
    examples = compute_targets(rows, "each")
    stem = "07_000001"
    assert [e.example_id for e in examples] == [
        f"{stem}@11",
        f"{stem}@12",
        f"{stem}@11@2",
    ]
    assert [e.fine[:2] for e in examples] == [[1, 0], [0, 0], [0, 1]]
    assert {e.audio_filename for e in examples} == {"07_000001.wav"}


@pytest.mark.parametrize("rule", ["majority", "mean", "each"])
def test_nobody_to_ask(rule):
    """A clip with team rows alone has a target under "any" only."""
    rows = _rows((-1, (1,)))
    assert compute_targets(rows)[0].fine[0] == 1.0
    with pytest.raises(ValueError, match="07_000001.wav has neither a truth"):
        compute_targets(rows, rule)


@pytest.mark.parametrize("split", ["validate", "test"])
def test_evaluation_needs_truth(split):
    """How many lack it, and the first of them."""
    names = [f"07_{k:06d}.wav" for k in range(7)]
    parts = [_rows((11, (1,)), split=split, name=name) for name in names]
    with pytest.raises(
        ValueError,
        match=f"7 files of split '{split}' have no truth row .*"
        "07_000000.wav, .* and 2 more",
    ):
        compute_targets(_joined(*parts))


def test_one_name_in_two_splits_gets_two_ids():
    """Two recordings of one name: neither takes the other's votes."""
    rows = _joined(_rows(*CROWD), _rows((0, (0, 0, 0, 1)), split="validate"))
    train, validate = compute_targets(rows)
    assert train.example_id == "07_000001" and train.fine[0] == 1.0
    assert validate.example_id == "07_000001@validate"
    assert validate.fine[0] == 0.0


def test_examples_ascend_by_name():
    """Whatever the order of the rows."""
    rows = _joined(_rows((1, (1,)), name="b.wav"), _rows((1, ()), name="a.wav"))
    assert [e.example_id for e in compute_targets(rows)] == ["a", "b"]


def test_repair_of_coarse_2():
    """Only a 2-* tag marks machinery-impact then; the input stays."""
    coarse2, rock_drill = ALL_TAGS.index("2_machinery-impact"), 4
    votes = np.zeros((2, 37), dtype=np.int8)
    votes[:, coarse2] = 1
    votes[0, rock_drill] = 1
    parts = [
        _rows((0, vote), name=name)
        for name, vote in zip("ab", votes, strict=True)
    ]
    rows = _joined(*parts)
    assert [e.coarse[1] for e in compute_targets(rows)] == [1, 1]
    repaired = compute_targets(rows, repair_coarse2=True)
    assert [e.coarse[1] for e in repaired] == [1, 0]
    assert rows.presence[1, coarse2] == 1


def test_unknown_rule():
    """A near name is offered."""
    with pytest.raises(ValueError, match="target_rule='majorty'.*'majority'"):
        compute_targets(_rows(*CROWD), "majorty")


@pytest.mark.parametrize(
    "examples, message",
    [
        ([Example("a", "a", "train", "1", np.full(37, 0.5))], "not 0 or 1"),
        ([Example("a", "a", "train", "1", np.ones(37))] * 2, "occurs twice"),
    ],
)
def test_what_cannot_be_serialised(examples, message):
    """Soft targets and repeated clips."""
    with pytest.raises(ValueError, match=message):
        serialize_targets(examples)


@pytest.fixture(scope="module")
def official(reference_task5):
    """Annotations of the release and the official figures on them."""
    rows = read_annotations(reference_task5 / "annotations-dev.csv")
    counts = json.loads((reference_task5 / "targets_counts.json").read_text())
    return rows, counts, reference_task5


def test_official_targets_of_200_files(official):
    """The very bytes that the official code's targets give."""
    rows, counts, folder = official
    expected = (folder / "targets_200.csv").read_bytes()
    names = {line.split(b",")[0].decode() for line in expected.splitlines()}
    chosen = [e for e in compute_targets(rows) if e.audio_filename in names]
    content = serialize_targets(chosen)
    assert content == expected
    digest = hashlib.sha256(content).hexdigest()
    assert digest == counts["targets_200_csv"]["sha256"]


def test_official_counts_of_all_files(official):
    """Positive files of every tag in every split."""
    rows, counts, _ = official
    examples = compute_targets(rows)
    for split, expected in counts["positive_files"].items():
        part = [e for e in examples if split in (e.split, "all")]
        totals = np.sum([e.targets for e in part], axis=0)
        found = dict(zip(ALL_TAGS, totals.astype(int).tolist(), strict=True))
        assert found == expected


def test_majority_and_repair_on_the_real_file(official):
    """Figures that are known from other counts of the same file."""
    rows, _, _ = official
    train = [e for e in compute_targets(rows, "majority") if e.split == "train"]
    totals = np.sum([e.targets for e in train], axis=0)
    assert totals[ALL_TAGS.index("1_engine")] == 548
    assert totals[ALL_TAGS.index("7_human-voice")] == 488
    repaired = compute_targets(rows, repair_coarse2=True)
    validate = [e.coarse[1] for e in repaired if e.split == "validate"]
    assert sum(validate) == 16
    each = compute_targets(rows, "each")
    assert sum(e.split == "train" for e in each) == 7053
    assert sum(e.split == "validate" for e in each) == 443
    assert len({e.example_id for e in each}) == len(each)
