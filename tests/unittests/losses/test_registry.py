"""Losses by name.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin import losses


def test_names_build_their_modules():
    kinds = {
        "cka": losses.CKALoss,
        "dist_intra": losses.DISTIntraLoss,
        "iusp": losses.IUSPLoss,
        "rkd_distance": losses.RKDDistanceLoss,
        "soft_target": losses.SoftTargetLoss,
        "sp": losses.SPLoss,
    }
    assert losses.list_losses() == tuple(kinds)
    for name, kind in kinds.items():
        assert type(losses.get_loss(name)) is kind


@pytest.mark.parametrize("name", losses.list_losses())
def test_every_loss_takes_student_teacher_lengths(name):
    feats, lengths = torch.randn(2, 4, 3), torch.tensor([1.0, 0.5])
    value = losses.get_loss(name)(feats, feats, lengths=lengths)
    assert value.shape == () and value.isfinite()


def test_options_arrive():
    loss = losses.get_loss("soft_target", temperature=2.0)
    assert loss.temperature == 2.0
    with pytest.raises(TypeError, match="temprature"):
        losses.get_loss("soft_target", temprature=2.0)


def test_unknown_name():
    with pytest.raises(ValueError, match="name='iups'.*Did you mean 'iusp'"):
        losses.get_loss("iups")


def test_public_names_exist():
    assert all(hasattr(losses, name) for name in losses.__all__)
