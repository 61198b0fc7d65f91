"""A frozen teacher stays frozen, and loads its own weights only.

Authors
 * The iusp_plugin authors 2026
"""

import copy
import pickle

import pytest
import torch

from iusp_plugin.features import LogMel
from iusp_plugin.models import get_model
from iusp_plugin.teachers import FrozenTeacher
from iusp_plugin.weights import save_tagger


def network(seed=0, **options):
    """A small tagger with batch norm and dropout."""
    torch.manual_seed(seed)
    return get_model("cnn_20k", n_mels=16, **{"n_classes": 4, **options})


def front_end(**options):
    """Its front end, with statistics of its own."""
    made = LogMel(n_mels=16, **options)
    made.mean.fill_(-3.0)
    made.std.fill_(2.0)
    return made


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.ckpt"
    save_tagger(path, network(), front_end())
    return path


@pytest.fixture
def teacher(checkpoint):
    made = FrozenTeacher(network(1), LogMel(n_mels=16), checkpoint)
    return made.load(["default"])


def test_outputs_are_the_trained_network_s(teacher):
    feats = torch.randn(2, 32, 16)
    lengths = torch.tensor([1.0, 0.5])
    expected = network().eval()(front_end().normalise(feats), lengths)
    out = teacher(feats, lengths)
    assert sorted(out) == ["default", "logits"]
    assert torch.equal(out["logits"], expected)
    assert out["default"].shape[:2] == (2, 4)
    assert not any(v.requires_grad for v in out.values())


def test_taps_are_chosen_at_load(checkpoint):
    made = FrozenTeacher(network(1), LogMel(n_mels=16), checkpoint)
    feats = torch.randn(1, 32, 16)
    assert list(made.load()(feats)) == ["logits"]
    assert list(made.load(["block3"])(feats)) == ["logits", "block3"]
    assert list(made.load(["block4"])(feats)) == ["logits", "block4"]


def test_training_loop_leaves_it_bitwise_unchanged(teacher):
    before = copy.deepcopy(teacher.state_dict())
    modules = torch.nn.ModuleDict(
        {"teacher": teacher, "student": torch.nn.Linear(16, 4)}
    )
    optimizer = torch.optim.SGD(modules.parameters(), 0.1, weight_decay=0.1)
    modules.requires_grad_(True)
    feats = torch.randn(4, 32, 16)
    first = teacher(feats)["logits"]
    for _ in range(3):
        modules.train()
        target = modules["teacher"](feats)["logits"]
        assert torch.equal(target, first)  # no dropout, no batch statistics
        loss = (modules["student"](feats.mean(1)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is None for p in teacher.parameters())
    after = teacher.state_dict()
    assert list(after) == list(before)
    for key, value in before.items():
        same = value == after[key]
        assert bool(same.all()) if isinstance(value, torch.Tensor) else same
    assert modules["student"].weight.grad is not None


def test_always_in_eval_mode_and_without_gradient(checkpoint):
    made = FrozenTeacher(network(), front_end(), checkpoint)
    for _ in range(2):
        assert not any(m.training for m in made.modules())
        assert not any(p.requires_grad for p in made.parameters())
        assert made.train() is made and made.train(True) is made
        assert made.requires_grad_(True) is made
        assert not any(m.training for m in made.modules())
        assert not any(p.requires_grad for p in made.parameters())
        made.load(["default"])


def test_not_loaded(checkpoint):
    made = FrozenTeacher(network(), front_end(), checkpoint)
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        made(torch.randn(1, 32, 16))


def test_failed_load_does_not_count_as_loaded(teacher, tmp_path):
    other = tmp_path / "other.ckpt"
    save_tagger(other, network(n_classes=7), front_end())
    teacher.checkpoint = other
    with pytest.raises(ValueError, match="another network"):
        teacher.load()
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        teacher(torch.randn(1, 32, 16))


def test_missing_file_names_the_command(tmp_path):
    made = FrozenTeacher(
        network(), front_end(), tmp_path / "no.ckpt", "python make_it.py"
    )
    with pytest.raises(FileNotFoundError, match="python make_it.py"):
        made.load()
    made = FrozenTeacher(network(), front_end(), str(tmp_path / "no.ckpt"))
    with pytest.raises(FileNotFoundError, match=r"hparams/teacher\.yaml"):
        made.load()


@pytest.mark.parametrize(
    "model, options, match",
    [
        (lambda: network(n_classes=5), {}, "model of another network.*head"),
        (
            lambda: get_model("cnn_80k", n_mels=16, n_classes=4),
            {},
            r"\) there, \(",
        ),
        (lambda: network(norm="group"), {}, "absent here"),
        (network, {"hop_length": 160}, "hop_length: 320 in the .*, 160 here"),
        (network, {"scale": "db", "offset": 1e-9}, "offset.*scale: 'ln'"),
    ],
)
def test_other_network_or_front_end_is_refused(
    checkpoint, model, options, match
):
    made = FrozenTeacher(model(), LogMel(n_mels=16, **options), checkpoint)
    with pytest.raises(ValueError, match=match.replace(".*", "(?s:.*)")):
        made.load()


def test_damaged_and_foreign_files_are_refused(checkpoint):
    made = FrozenTeacher(network(), front_end(), checkpoint)
    whole = checkpoint.read_bytes()
    for content in (b"", b"not weights", whole[: len(whole) // 2]):
        checkpoint.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or another kind"):
            made.load()
    torch.save(network().state_dict(), checkpoint)
    with pytest.raises(ValueError, match="does not hold a tagger"):
        made.load()
    checkpoint.write_bytes(pickle.dumps({"model": network()}))
    with pytest.raises(ValueError, match="damaged or another kind"):
        made.load()


def test_unknown_tap_is_refused(checkpoint):
    made = FrozenTeacher(network(), front_end(), checkpoint)
    with pytest.raises(ValueError, match="Did you mean 'block4'"):
        made.load(["blok4"])
