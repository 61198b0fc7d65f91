"""Peak activation memory against sums made by hand.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.models import get_model
from iusp_plugin.models.memory import peak_activation_bytes


class Chain(torch.nn.Module):
    """Two linear layers whose results live as told."""

    def __init__(self, keep):
        super().__init__()
        self.first = torch.nn.Linear(64, 100, bias=False)
        self.second = torch.nn.Linear(100, 50, bias=False)
        self.third = torch.nn.Linear(50, 10, bias=False)
        self.keep = keep

    def forward(self, feats):
        x = self.first(feats)
        y = self.second(x)
        if not self.keep:
            del x
        z = self.third(y)
        return z + x.mean() if self.keep else z


@pytest.mark.parametrize("keep, floats", [(False, 150), (True, 171)])
def test_results_count_while_something_refers_to_them(keep, floats):
    """100 + 50 at the second layer; with x kept, 100 + 50 + 10 and more."""
    found = peak_activation_bytes(Chain(keep), n_frames=1)
    # Kept: x, y, z, the mean and the sum are alive at the end.
    assert found == 4 * floats


def test_grows_with_the_clip_and_not_with_the_weights():
    """Parameters, buffers and the input are not activations."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 1000))
    assert peak_activation_bytes(model, n_frames=3) == 4 * 3 * 1000
    assert peak_activation_bytes(model, n_frames=6) == 4 * 6 * 1000


def test_in_place_results_count_once():
    """What is written over the input of an operator is no new storage."""
    layers = [torch.nn.Linear(64, 8), torch.nn.ReLU(inplace=True)]
    assert peak_activation_bytes(torch.nn.Sequential(*layers), 2) == 4 * 16
    layers[1] = torch.nn.ReLU()
    assert peak_activation_bytes(torch.nn.Sequential(*layers), 2) == 4 * 32


def test_modes_and_statistics_are_left_alone():
    """Also those of single layers, and those of a batch norm."""
    model = get_model("cnn_20k")
    model.block2.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert peak_activation_bytes(model, n_frames=40) > 0
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


def test_mode_is_restored_after_an_error():
    """A clip too short for the model."""
    model = get_model("cnn_20k").train()
    with pytest.raises(ValueError, match="frames"):
        peak_activation_bytes(model, n_frames=2)
    assert model.training


def test_follows_the_precision():
    """Half the bytes in bfloat16."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 10))
    whole = peak_activation_bytes(model, n_frames=5)
    assert peak_activation_bytes(model.bfloat16(), n_frames=5) == whole // 2
