"""The weighted sum of terms: what is computed, and what is not.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from iusp_plugin.losses import (
    DistillationTerm,
    IUSPLoss,
    SoftTargetLoss,
    SPLoss,
    WeightedLosses,
    cosine_similarity,
    iusp_loss,
    soft_target_loss,
)


class Forbidden(torch.nn.Module):
    """A loss that must not be called."""

    def forward(self, student, teacher, lengths=None):
        raise AssertionError("called")


class Learned(torch.nn.Module):
    """A loss with weights of its own."""

    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(4, 6)

    def forward(self, student, teacher, lengths=None):
        return (self.project(student) - teacher).square().mean()


def outputs(seed):
    """Logits, and a tap of eight frames."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "logits": torch.randn(2, 3, generator=generator),
        "block4": torch.randn(2, 8, 5, generator=generator),
    }


def two_terms():
    """Soft targets, and IUSP between taps of the same name."""
    return WeightedLosses(
        {
            "kd": DistillationTerm(SoftTargetLoss(), weight=0.5),
            "iusp": DistillationTerm(
                IUSPLoss(), 100, student_tap="block4", teacher_tap="block4"
            ),
        }
    )


def test_each_term_is_its_loss_and_the_sum_is_weighted():
    student, teacher = outputs(0), outputs(1)
    lengths = torch.tensor([1.0, 0.5])
    losses = two_terms()
    values = losses(student, teacher, lengths)
    kd = soft_target_loss(student["logits"], teacher["logits"])
    iusp = iusp_loss(student["block4"], teacher["block4"], lengths)
    assert list(values) == ["kd", "iusp"]
    assert torch.equal(values["kd"], kd)
    assert torch.equal(values["iusp"], iusp)
    assert not torch.isclose(
        iusp, iusp_loss(student["block4"], teacher["block4"])
    )
    torch.testing.assert_close(
        losses.weighted_sum(values), 0.5 * kd + 100 * iusp
    )


def test_student_and_teacher_are_not_confused():
    seen = []

    def spy(student, teacher, lengths=None):
        seen.append((student, teacher))
        return student.sum()

    term = DistillationTerm(spy, 1.0, student_tap="a", teacher_tap="b")
    student, teacher = {"a": torch.zeros(1)}, {"b": torch.ones(1)}
    WeightedLosses({"x": term})(student, teacher)
    assert seen == [(student["a"], teacher["b"])]


def test_weight_zero_leaves_a_term_out():
    losses = WeightedLosses(
        {"off": DistillationTerm(Forbidden(), 0.0, "no such", "tap")}
    )
    assert losses(outputs(0), {}) == {}
    assert not losses.needs_teacher
    assert losses.student_taps == losses.teacher_taps == []
    on = DistillationTerm(Forbidden(), 1.0)
    with pytest.raises(AssertionError, match="called"):
        WeightedLosses({"on": on})(outputs(0), outputs(1))


@pytest.mark.parametrize("terms", [None, {}])
def test_no_terms_is_plain_training(terms):
    losses = WeightedLosses(terms)
    assert losses({}, {}) == {}
    assert losses.weighted_sum({}) == 0.0
    assert not losses.needs_teacher


def test_taps_lists():
    losses = two_terms()
    assert losses.needs_teacher
    assert losses.student_taps == losses.teacher_taps == ["block4"]
    term = DistillationTerm(IUSPLoss(), 1, "z", "block4")
    again = DistillationTerm(IUSPLoss(), 1, "a", "block4")
    losses = WeightedLosses({"x": term, "y": again})
    assert losses.student_taps == ["a", "z"]
    assert losses.teacher_taps == ["block4"]


@pytest.mark.parametrize("weight", [-1.0, -1e-9, float("nan")])
def test_bad_weight_is_refused(weight):
    with pytest.raises(ValueError, match=r"weight=\S+ must be >= 0"):
        DistillationTerm(SoftTargetLoss(), weight)


def test_missing_tap_is_named_with_its_side():
    student, teacher = outputs(0), outputs(1)
    del teacher["block4"]
    with pytest.raises(KeyError, match="'iusp' compares the teacher's 'block4"):
        two_terms()(student, teacher)
    student["block3"] = student.pop("block4")
    with pytest.raises(KeyError, match="student's.*Did you mean 'block3'"):
        two_terms()(student, teacher)


def test_weights_of_a_loss_are_registered():
    losses = WeightedLosses({"fit": DistillationTerm(Learned(), 2.0)})
    names = {name for name, _ in losses.named_parameters()}
    assert names == {
        "terms.fit.loss.project.weight",
        "terms.fit.loss.project.bias",
    }
    feats = {"logits": torch.ones(2, 4)}
    values = losses(feats, {"logits": torch.zeros(2, 6)})
    losses.weighted_sum(values).backward()
    assert all(p.grad is not None for p in losses.parameters())


def test_yaml_built_equals_python_built():
    text = """
distillation: !new:iusp_plugin.losses.WeightedLosses
    terms:
        kd: !new:iusp_plugin.losses.DistillationTerm
            weight: 0.5
            loss: !new:iusp_plugin.losses.SoftTargetLoss
        iusp: !new:iusp_plugin.losses.DistillationTerm
            weight: 100
            student_tap: block4
            teacher_tap: block4
            loss: !new:iusp_plugin.losses.IUSPLoss
        off: !new:iusp_plugin.losses.DistillationTerm
            weight: 0.0
            loss: !new:iusp_plugin.losses.SPLoss
"""
    from_yaml = load_hyperpyyaml(text)["distillation"]
    student, teacher = outputs(0), outputs(1)
    sums = [
        losses.weighted_sum(losses(student, teacher))
        for losses in (from_yaml, two_terms())
    ]
    assert torch.equal(*sums)


def test_a_term_adds_its_layer_pairs():
    first, second = outputs(0), outputs(1)
    student = first | {"block2": torch.randn(2, 8, 3)}
    teacher = {"conv2": torch.randn(2, 8, 7), "conv4": second["block4"]}
    term = DistillationTerm(
        IUSPLoss(), 1, ["block2", "block4"], ["conv2", "conv4"]
    )
    losses = WeightedLosses({"iusp": term})
    assert losses.student_taps == ["block2", "block4"]
    assert losses.teacher_taps == ["conv2", "conv4"]
    expected = iusp_loss(student["block2"], teacher["conv2"]) + iusp_loss(
        student["block4"], teacher["conv4"]
    )
    assert losses(student, teacher)["iusp"] == expected


def test_layer_pairs_from_yaml():
    text = """
    term: !new:iusp_plugin.losses.DistillationTerm
        loss: !new:iusp_plugin.losses.IUSPLoss
        weight: 2
        student_tap: [block2, block4]
        teacher_tap: [conv2, conv4]
    """
    term = load_hyperpyyaml(text)["term"]
    assert term.pairs == [("block2", "conv2"), ("block4", "conv4")]


@pytest.mark.parametrize("taps", [(["a"], ["b", "c"]), ("a", []), ([], [])])
def test_pairs_that_do_not_match_are_refused(taps):
    with pytest.raises(ValueError, match="as many taps each"):
        DistillationTerm(IUSPLoss(), 1, *taps)


def test_an_unknown_tap_of_a_pair_is_named():
    term = DistillationTerm(IUSPLoss(), 1, ["block4", "blok2"], ["a", "b"])
    feats = outputs(0) | {"block2": None}
    with pytest.raises(KeyError, match="student's 'blok2'.*mean 'block2'"):
        WeightedLosses({"iusp": term})(feats, {"a": None, "b": None})


def every_term():
    """Each kind of record, and a loss of a user's own."""
    pair = {"student_tap": "block4", "teacher_tap": "block4"}
    return WeightedLosses(
        {
            "kd": DistillationTerm(SoftTargetLoss(), 1),
            "iusp": DistillationTerm(IUSPLoss(), 1, **pair),
            "mean": DistillationTerm(SPLoss(pooling="mean"), 1, **pair),
            "sp": DistillationTerm(SPLoss(), 1, **pair),
            "own": DistillationTerm(Squares(), 1, **pair),
            "off": DistillationTerm(IUSPLoss(), 0, "x", "y"),
        }
    )


class Squares(torch.nn.Module):
    """A user's loss, which says nothing of records."""

    def forward(self, student, teacher, lengths=None):
        return (student - teacher).square().mean()


def test_what_a_cache_has_to_keep():
    """Each record once, of active terms alone."""
    assert every_term().teacher_records == [
        ("block4", "cosine"),
        ("block4", "features"),
        ("block4", "mean"),
        ("logits", "features"),
    ]
    assert WeightedLosses().teacher_records == []


@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.5])])
def test_records_stand_in_for_features(lengths):
    """With records of full precision the losses are the same."""
    losses, student, teacher = every_term(), outputs(0), outputs(1)
    expected = losses(student, teacher, lengths)
    frames = teacher["block4"]
    mean = frames.mean(dim=1)
    if lengths is not None:
        mean[1] = frames[1, :4].mean(dim=0)
    kept = {
        "logits": teacher["logits"],
        "block4": frames,
        "block4.mean": mean,
        "block4.cosine": cosine_similarity(frames, lengths),
    }
    found = losses(student, kept, lengths)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    # They are really read: without the features, two terms lack something.
    del kept["block4"]
    with pytest.raises(KeyError, match="'sp' compares the teacher's 'block4'"):
        losses(student, kept, lengths)


def test_a_record_that_was_not_kept():
    losses, student = two_terms(), outputs(0)
    with pytest.raises(
        KeyError, match="'iusp' compares the teacher's 'block4'"
    ):
        losses(student, {"logits": student["logits"], "block4.mean": None})


@pytest.mark.parametrize(
    "schedule, shares",
    [
        ("constant", (1.0, 1.0, 1.0, 1.0)),
        ("decay", (1.0, 0.75, 0.5, 0.0)),
        ("first_half", (1.0, 1.0, 0.0, 0.0)),
    ],
)
def test_schedules(schedule, shares):
    """The weight at the start, a quarter, the half, the end."""
    term = DistillationTerm(SoftTargetLoss(), 8.0, schedule=schedule)
    found = [term.weight_at(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert found == [8.0 * share for share in shares]


def test_schedule_of_the_sum():
    """Each term follows its own schedule; the values are left alone."""
    losses = two_terms()
    losses.terms["iusp"].schedule = "decay"
    values = losses(outputs(0), outputs(1))
    assert losses.weights_at(0.75) == {"kd": 0.5, "iusp": 25.0}
    expected = 0.5 * values["kd"] + 25.0 * values["iusp"]
    assert losses.weighted_sum(values, 0.75) == expected
    assert losses.weighted_sum(values) != expected
    assert WeightedLosses().weights_at(0.3) == {}


@pytest.mark.parametrize("progress", [-0.1, 1.01])
def test_progress_out_of_range(progress):
    term = DistillationTerm(SoftTargetLoss(), 1.0)
    with pytest.raises(ValueError, match=r"progress=.*>= 0.0 and <= 1.0"):
        term.weight_at(progress)


def test_unknown_schedule():
    with pytest.raises(ValueError, match="schedule.*first_half"):
        DistillationTerm(SoftTargetLoss(), 1.0, schedule="fist_half")
