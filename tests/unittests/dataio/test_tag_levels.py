"""Outputs of a network against the taxonomy, tag by tag.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.dataio import taxonomy
from iusp_plugin.dataio.tag_levels import (
    LEVELS,
    count_outputs,
    fine_mask,
    output_tags,
    output_targets,
    to_submission,
)
from iusp_plugin.losses import masked_bce_loss
from tests.reference.task5_loops import FINE_COLUMNS

# Columns of the complete tags among the 29, in order, and each one's X column.
COMPLETE = [k for tags, _ in FINE_COLUMNS.values() for k in tags]
X_OF = [x for tags, x in FINE_COLUMNS.values() for _ in tags]


def draw_targets(seed=0, batch=40):
    """Random binary targets, coarse and fine."""
    generator = torch.Generator().manual_seed(seed)
    bits = (torch.rand(batch, 37, generator=generator) < 0.3).float()
    return bits[:, :8], bits[:, 8:]


def test_names_are_the_taxonomy_s():
    assert output_tags("coarse") == taxonomy.COARSE_TAGS
    fine = [taxonomy.FINE_TAGS[k] for k in COMPLETE]
    assert list(output_tags("fine")) == fine
    assert not any("-X_" in tag for tag in fine)
    assert output_tags("both") == (*taxonomy.COARSE_TAGS, *fine)
    assert [count_outputs(level) for level in LEVELS] == [31, 8, 23]


def test_mask_by_loops():
    _, fine = draw_targets()
    mask = fine_mask(fine)
    for row in range(len(fine)):
        for column, x in enumerate(X_OF):
            expected = 1.0 if x is None else 1 - float(fine[row, x])
            assert float(mask[row, column]) == expected
    assert {None} == {X_OF[COMPLETE.index(k)] for k in (9, 28)}


def test_soft_targets_mask_in_part():
    fine = torch.zeros(1, 29)
    fine[0, 3] = 0.25
    assert fine_mask(fine)[0, :4].tolist() == [0.75, 0.75, 0.75, 1.0]


def test_fine_targets_by_loops():
    coarse, fine = draw_targets()
    targets, weights = output_targets(coarse, fine, "fine")
    assert torch.equal(weights, fine_mask(fine))
    for column, k in enumerate(COMPLETE):
        assert torch.equal(targets[:, column], fine[:, k])


def test_coarse_targets():
    coarse, fine = draw_targets()
    targets, weights = output_targets(coarse, fine, "coarse")
    assert torch.equal(targets, coarse) and (weights == 1).all()


def test_both_levels_weigh_the_same():
    """The loss of both is the mean of the two levels' losses."""
    coarse, fine = draw_targets()
    logits = torch.randn(len(coarse), 31)
    losses = {
        level: masked_bce_loss(part, *output_targets(coarse, fine, level))
        for level, part in (
            ("both", logits),
            ("coarse", logits[:, :8]),
            ("fine", logits[:, 8:]),
        )
    }
    expected = (losses["coarse"] + losses["fine"]) / 2
    torch.testing.assert_close(losses["both"], expected)
    targets, _ = output_targets(coarse, fine, "both")
    assert torch.equal(targets[:, :8], coarse)
    assert torch.equal(targets[:, 8:], output_targets(coarse, fine, "fine")[0])


def test_fine_loss_is_the_official_one():
    """Target and prediction of a category vanish where its X tag is on."""
    coarse, fine = draw_targets()
    logits = torch.randn(len(fine), 23, requires_grad=True)
    targets, weights = output_targets(coarse, fine, "fine")
    loss = masked_bce_loss(logits, targets, weights) * logits.numel()
    loss.backward()
    total = 0.0
    p = logits.detach().double().sigmoid()
    for row in range(len(fine)):
        for column, (k, x) in enumerate(zip(COMPLETE, X_OF, strict=True)):
            gradient = float(logits.grad[row, column])
            if x is not None and fine[row, x] == 1:
                assert gradient == 0
                continue
            y, q = float(fine[row, k]), float(p[row, column])
            total -= float(torch.tensor(q if y else 1 - q).log())
            assert gradient == pytest.approx(q - y, abs=1e-5)
    assert loss.item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("level", LEVELS)
def test_submission_by_loops(level):
    torch.manual_seed(0)
    outputs = torch.rand(6, count_outputs(level))
    kept = outputs.clone()
    coarse, fine = to_submission(outputs, level)
    assert coarse.shape == (6, 8) and fine.shape == (6, 29)
    complete = outputs[:, 8:] if level == "both" else outputs
    for row in range(6):
        for category, (tags, x) in FINE_COLUMNS.items():
            ours = [
                0.0
                if level == "coarse"
                else float(complete[row, COMPLETE.index(k)])
                for k in tags
            ]
            assert fine[row, tags].tolist() == ours
            assert x is None or fine[row, x] == 0
            expected = (
                max(ours)
                if level == "fine"
                else float(outputs[row, category - 1])
            )
            assert float(coarse[row, category - 1]) == expected
    assert torch.equal(outputs, kept)


@pytest.mark.parametrize("level", LEVELS)
def test_perfect_outputs_submit_the_truth(level):
    coarse, fine = draw_targets()
    fine[:, [x for x in X_OF if x is not None]] = 0
    targets, _ = output_targets(coarse, fine, level)
    submitted_coarse, submitted_fine = to_submission(targets, level)
    if level != "fine":
        assert torch.equal(submitted_coarse, coarse)
    if level != "coarse":
        assert torch.equal(submitted_fine, fine)


@pytest.mark.parametrize(
    "shape, level",
    [((2, 31), "fine"), ((2, 23), "both"), ((2, 29), "fine"), ((8,), "coarse")],
)
def test_wrong_number_of_outputs(shape, level):
    wanted = count_outputs(level)
    with pytest.raises(ValueError, match=rf"\(batch, {wanted}\) for level="):
        to_submission(torch.zeros(shape), level)


def test_unknown_level():
    coarse, fine = draw_targets(batch=1)
    for call in (
        lambda: output_tags("fin"),
        lambda: count_outputs("fin"),
        lambda: output_targets(coarse, fine, "fin"),
        lambda: to_submission(coarse, "fin"),
    ):
        with pytest.raises(ValueError, match="level='fin'.*mean 'fine'"):
            call()
