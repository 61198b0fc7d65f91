"""Weights of a tagger: round trip, strictness, complete or absent.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.features import LogMel
from iusp_plugin.weights import load_tagger, save_tagger


def tagger(seed=0, width=3):
    """A small network and a front end with statistics."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, width), torch.nn.BatchNorm1d(width)
    )
    model(torch.randn(16, 8))  # moves the running statistics
    front_end = LogMel(n_mels=8)
    front_end.mean.normal_()
    front_end.std.uniform_(1, 2)
    return model, front_end


def states(*modules):
    """All tensors of some modules."""
    return [
        v
        for m in modules
        for v in m.state_dict().values()
        if isinstance(v, torch.Tensor)
    ]


def same(a, b):
    """Whether two lists of tensors are equal bit by bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "er" / "model.ckpt"
    saved, loaded = tagger(0), tagger(1)
    assert not same(states(*saved), states(*loaded))
    save_tagger(path, *saved)
    load_tagger(str(path), *loaded)
    assert same(states(*saved), states(*loaded))
    assert [p.name for p in path.parent.iterdir()] == ["model.ckpt"]


def test_the_same_weights_give_the_same_bytes(tmp_path):
    """Whatever the file's name: a teacher made again is the same teacher."""
    one, two = tmp_path / "a.ckpt", tmp_path / "other" / "b.ckpt"
    save_tagger(one, *tagger(0))
    save_tagger(two, *tagger(0))
    assert one.read_bytes() == two.read_bytes()
    save_tagger(two, *tagger(1))
    assert one.read_bytes() != two.read_bytes()


def test_replaces_an_older_file(tmp_path):
    path = tmp_path / "model.ckpt"
    save_tagger(path, *tagger(0))
    save_tagger(path, *tagger(1))
    loaded = tagger(2)
    load_tagger(path, *loaded)
    assert same(states(*loaded), states(*tagger(1)))


def test_crash_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.ckpt"
    save_tagger(path, *tagger(0))
    old = path.read_bytes()

    def crash(content, target):
        target.write(b"half of")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", crash)
        with pytest.raises(OSError, match="disk full"):
            save_tagger(path, *tagger(1))
    assert path.read_bytes() == old
    save_tagger(path, *tagger(1))  # the remains do not stand in the way
    assert [p.name for p in tmp_path.iterdir()] == ["model.ckpt"]


def test_crash_of_a_first_save_leaves_no_file(tmp_path, monkeypatch):
    def crash(content, target):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="disk full"):
        save_tagger(tmp_path / "model.ckpt", *tagger())
    assert not (tmp_path / "model.ckpt").exists()


def test_missing_file(tmp_path):
    for path in (tmp_path / "no.ckpt", tmp_path):
        with pytest.raises(FileNotFoundError, match="No weights at"):
            load_tagger(path, *tagger())


@pytest.mark.parametrize(
    "content, match",
    [
        ([1, 2], "does not hold a tagger"),
        ({"model": {}}, "keys model and front_end"),
        ({"model": {}, "front_end": {}, "x": 1}, "does not hold a tagger"),
        ({"model": {}, "front_end": {}}, "front_end of another network"),
        ({"model": 1, "front_end": 2}, "front_end of another network"),
    ],
)
def test_foreign_content_is_refused(tmp_path, content, match):
    path = tmp_path / "model.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=match):
        load_tagger(path, *tagger())


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"PK\x03\x04 broken"])
def test_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.ckpt cannot be read as wei"):
        load_tagger(path, *tagger())


def test_loading_is_strict(tmp_path):
    path = tmp_path / "model.ckpt"
    save_tagger(path, *tagger())
    _, front_end = tagger()
    wider, _ = tagger(width=4)
    with pytest.raises(
        ValueError, match=r"model of another.*\) there, \(.*\) here"
    ):
        load_tagger(path, wider, front_end)
    more = torch.nn.Sequential(*tagger()[0], torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"model of another.* absent there"):
        load_tagger(path, more, front_end)
    fewer = tagger()[0][:1]
    with pytest.raises(
        ValueError, match=r"5 of 7 entries differ.* absent here"
    ):
        load_tagger(path, fewer, front_end)
    with pytest.raises(ValueError, match="another front end.*n_mels: 8 in"):
        load_tagger(path, tagger()[0], LogMel(n_mels=9))


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"model": Dangerous(), "front_end": {}}, path)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_tagger(path, *tagger())


class Dangerous:
    """Would end the process on loading, if loading ran code."""

    def __reduce__(self):
        return (exit, (3,))
