"""Feature taps: what they return, refuse, leave behind and survive.

Authors
 * The iusp_plugin authors 2026
"""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from iusp_plugin.models import get_model
from iusp_plugin.taps import FeatureTaps


class Toy(nn.Module):
    """A convolution, a layer that may fail, and a head."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.pair = Pair()
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(3, 2)
        self.fail = False
        self.twice = False

    def forward(self, feats, lengths=None):
        x = self.norm(self.conv(feats.unsqueeze(1)))
        if self.twice:
            self.conv(feats.unsqueeze(1))
        if self.fail:
            raise RuntimeError("broken network")
        return self.head(self.pair(x)[0].mean(dim=(2, 3)))


class Pair(nn.Module):
    """Returns a tuple, as an LSTM does."""

    def forward(self, x):
        return x, None


CONV = {"conv": "channel_first"}


def hooks(model):
    """Number of forward hooks in a network."""
    return sum(len(m._forward_hooks) for m in model.modules())


@pytest.fixture
def feats():
    return torch.randn(2, 8, 4)


def test_output_and_feature_are_the_network_s_own(feats):
    net = Toy().eval()
    logits, taps = FeatureTaps(net, CONV)(feats)
    assert torch.equal(logits, net(feats))
    expected = net.conv(feats.unsqueeze(1)).permute(0, 2, 3, 1)
    assert list(taps) == ["conv"]
    assert taps["conv"].shape == (2, 8, 4, 3)
    assert torch.equal(taps["conv"], expected)


def test_channel_first_map_is_returned_as_a_view(feats):
    net = nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 3, 1))
    logits, taps = FeatureTaps(net, {"1": "channel_first"})(feats)
    assert taps["1"].data_ptr() == logits.data_ptr()
    _, taps = FeatureTaps(nn.Conv1d(4, 3, 1), {})(feats.mT)
    assert taps == {}
    net = nn.Sequential(nn.Conv1d(4, 3, 1))
    logits, taps = FeatureTaps(net, {"0": "channel_first"})(feats.mT)
    assert torch.equal(taps["0"], logits.mT)


def test_without_taps_only_the_output_is_returned(feats):
    net = Toy().eval()
    for taps in ((), [], {}):
        logits, found = FeatureTaps(net, taps)(feats)
        assert found == {} and torch.equal(logits, net(feats))
    assert hooks(net) == 0


@pytest.mark.parametrize("name", ["cnn_20k", "cnn_lstm_small"])
def test_declared_taps_come_time_first(name):
    model = get_model(name).eval()
    tapped = FeatureTaps(model, ["default", "early", *model.taps])
    _, found = tapped(torch.randn(2, 32, 64), torch.tensor([1.0, 0.5]))
    assert set(found) == {"default", "early", *model.taps}
    for key, tap in model.taps.items():
        assert found[key].shape[:2] == (2, 32 // tap.time_stride)
        assert found[key].shape[-1] == tap.channels
    assert torch.equal(found["default"], found[model.default_tap])
    assert torch.equal(found["early"], found[model.early_tap])


def test_a_tap_named_twice_is_one_tap(feats):
    model = get_model("cnn_20k")
    tapped = FeatureTaps(model, ["block4", "block4"])
    assert list(tapped(torch.randn(1, 32, 64))[1]) == ["block4"]


@pytest.mark.parametrize(
    "model, taps, match",
    [
        ("cnn_20k", ["blok4"], "tap='blok4' .*Did you mean 'block4'"),
        ("cnn_20k", "block4", r"must be a list: \['block4'\]"),
        ("toy", {"cnv": "channel_first"}, "'cnv' .*Toy.*Did you mean 'conv'"),
        ("toy", {"conv": "channels_first"}, "Did you mean 'channel_first'"),
        ("toy", {"norm": "channel_first"}, "BatchNorm.*tap the block around"),
        ("toy", ["conv"], r"'conv' is not a tap of Toy. Known: \(none\)"),
        ("toy", ["default"], "'default' is not a tap of Toy"),
    ],
)
def test_wrong_taps_are_refused(model, taps, match):
    net = Toy() if model == "toy" else get_model(model)
    with pytest.raises(ValueError, match=match):
        FeatureTaps(net, taps)
    assert hooks(net) == 0


def test_a_refused_list_leaves_no_hook_of_its_good_taps():
    net = Toy()
    with pytest.raises(ValueError, match="'nope'"):
        FeatureTaps(net, {**CONV, "nope": "time_first"})
    assert hooks(net) == 0


def test_two_forwards_return_features_of_their_own(feats):
    tapped = FeatureTaps(Toy().eval(), CONV)
    _, first = tapped(feats)
    kept = first["conv"].clone()
    _, second = tapped(2 * feats)
    assert torch.equal(first["conv"], kept)
    assert not torch.equal(second["conv"], kept)
    _, again = tapped(feats)
    assert torch.equal(again["conv"], kept)


def test_exception_leaves_no_features_behind(feats):
    net = Toy().eval()
    tapped = FeatureTaps(net, CONV)
    net.fail = True
    seen = []
    net.conv.register_forward_hook(lambda *a: seen.append(weakref.ref(a[2])))
    with pytest.raises(RuntimeError, match="broken network"):
        tapped(feats)
    gc.collect()
    assert seen[0]() is None  # nothing keeps the feature alive
    net.fail = False
    assert tapped(feats)[1]["conv"].shape == (2, 8, 4, 3)


def test_returned_features_are_not_kept_alive(feats):
    tapped = FeatureTaps(Toy(), CONV)
    _, taps = tapped(feats)
    feature = weakref.ref(taps["conv"])
    del taps, _
    gc.collect()
    assert feature() is None


def test_network_by_itself_is_not_disturbed(feats):
    """Evaluation and export call the network without its wrapper."""
    net = Toy().eval()
    tapped = FeatureTaps(net, CONV)
    assert torch.equal(net(feats), net(feats))
    assert tapped(feats)[1]["conv"].shape == (2, 8, 4, 3)
    net.twice = True
    net(feats)


def test_two_wrappers_around_one_network(feats):
    net = Toy().eval()
    a, b = FeatureTaps(net, CONV), FeatureTaps(net, CONV)
    for tapped in (a, b, a, a, b):
        assert list(tapped(feats)[1]) == ["conv"]
    a.remove()
    assert a(feats)[1] == {} and list(b(feats)[1]) == ["conv"]


def test_tuple_output_is_refused(feats):
    tapped = FeatureTaps(Toy(), {"pair": "channel_first"})
    with pytest.raises(TypeError, match="'pair' returns tuple.*layer inside"):
        tapped(feats)


def test_uncalled_tap_is_named(feats):
    tapped = FeatureTaps(Toy(), {"unused": "time_first", **CONV})
    with pytest.raises(RuntimeError, match=r"taps \['unused'\] saw no call"):
        tapped(feats)


def test_layer_that_runs_twice_is_refused(feats):
    net = Toy()
    tapped = FeatureTaps(net, CONV)
    net.twice = True
    with pytest.raises(RuntimeError, match="'conv' was called twice"):
        tapped(feats)
    net.twice = False
    assert list(tapped(feats)[1]) == ["conv"]


def test_removal_leaves_the_network_as_it_was(feats):
    net = Toy()
    net.head.register_forward_hook(lambda *a: None)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    before = [list(m._forward_hooks) for m in net.modules()]
    tapped = FeatureTaps(net, CONV)
    assert list(net.state_dict()) == list(state)
    assert list(tapped.state_dict()) == [f"model.{k}" for k in state]
    tapped.remove()
    tapped.remove()
    assert [list(m._forward_hooks) for m in net.modules()] == before
    after = net.state_dict()
    assert all(torch.equal(after[k], v) for k, v in state.items())
    assert tapped(feats)[1] == {}


def test_copies_are_independent(feats):
    tapped = FeatureTaps(Toy().eval(), CONV)
    twin = copy.deepcopy(tapped)
    with torch.no_grad():
        twin.model.conv.weight.zero_()
        twin.model.conv.bias.zero_()
    assert tapped(feats)[1]["conv"].abs().sum() > 0
    assert twin(feats)[1]["conv"].abs().sum() == 0
    twin.remove()
    assert twin(feats)[1] == {} and hooks(twin.model) == 0
    assert list(tapped(feats)[1]) == ["conv"]


def test_gradient_flows_through_a_tap(feats):
    net = Toy()
    _, taps = FeatureTaps(net, CONV)(feats)
    taps["conv"].square().sum().backward()
    assert net.conv.weight.grad.abs().sum() > 0
    assert net.head.weight.grad is None


def test_works_compiled(feats):
    tapped = FeatureTaps(Toy().eval(), CONV)
    torch.compiler.reset()
    compiled = torch.compile(tapped, backend="eager")
    for scale in (1.0, 2.0, 3.0):
        logits, taps = tapped(scale * feats)
        logits_c, taps_c = compiled(scale * feats)
        torch.testing.assert_close(logits, logits_c)
        torch.testing.assert_close(taps["conv"], taps_c["conv"])
    taps_c["conv"].sum().backward()
    assert tapped.model.conv.weight.grad.abs().sum() > 0


def test_moves_and_modes_reach_the_network():
    net = Toy()
    tapped = FeatureTaps(net, CONV).double().eval()
    assert net.conv.weight.dtype == torch.float64 and not net.training
    _, taps = tapped(torch.randn(1, 4, 4, dtype=torch.float64))
    assert taps["conv"].dtype == torch.float64
