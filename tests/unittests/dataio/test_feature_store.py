"""The feature store: exact, reused, never stale, never partial.

Authors
 * The iusp_plugin authors 2026
"""

import json
import os

import numpy as np
import pytest
import soundfile
import torch

from iusp_plugin.dataio import feature_store as module
from iusp_plugin.dataio.clips import read_clip
from iusp_plugin.dataio.feature_store import FeatureStore, feature_store
from iusp_plugin.features import LogMel

RATE = 8000


def front_end(**options):
    """A small front end."""
    return LogMel(
        **{
            "sample_rate": RATE,
            "n_fft": 256,
            "win_length": 200,
            "hop_length": 100,
            "n_mels": 12,
            **options,
        }
    )


@pytest.fixture
def audio(tmp_path):
    """Three clips of different durations, one of them too long."""
    generator = np.random.default_rng(0)
    paths = {}
    for name, seconds in (("b", 0.5), ("a", 0.21), ("c", 1.5)):
        path = tmp_path / f"{name}.wav"
        samples = generator.uniform(-0.5, 0.5, round(seconds * RATE))
        soundfile.write(path, samples, RATE)
        paths[f"clip-{name}"] = str(path)
    return paths


@pytest.fixture
def reads(monkeypatch):
    """Counts how often audio is read."""
    calls = []

    def counting(path, *args):
        calls.append(path)
        return read_clip(path, *args)

    monkeypatch.setattr(module, "read_clip", counting)
    return calls


def stores(folder):
    """Everything that lies in the folder of stores."""
    return sorted(p.name for p in folder.iterdir())


def test_equals_features_on_the_fly_exactly(tmp_path, audio):
    made = front_end()
    made.mean.fill_(3.0)  # statistics play no part
    store = feature_store(tmp_path / "feats", audio, made, 1.0)
    assert len(store) == 3
    for clip, path in audio.items():
        wav = read_clip(path, RATE, 1.0)
        expected = made.log_mel(wav.unsqueeze(0)).squeeze(0)
        assert torch.equal(store[clip], expected)
        assert not store[clip].requires_grad
    frames = [len(store[f"clip-{name}"]) for name in "bac"]
    assert frames == [40, 16, 80]


def test_what_is_read_is_a_copy(tmp_path, audio):
    store = feature_store(tmp_path / "feats", audio, front_end(), 1.0)
    first = store["clip-a"]
    kept = first.clone()
    first.zero_()
    assert torch.equal(store["clip-a"], kept)


def test_a_second_call_reads_no_audio(tmp_path, audio, reads):
    folder = tmp_path / "feats"
    first = feature_store(folder, audio, front_end(), 1.0)
    assert sorted(reads) == sorted(audio.values())
    other = front_end()
    other.mean.fill_(1.0)
    second = feature_store(str(folder), audio, other, 1.0)
    assert len(reads) == 3 and second.folder == first.folder
    assert torch.equal(first["clip-c"], second["clip-c"])
    assert len(stores(folder)) == 1


@pytest.mark.parametrize(
    "change", ["front end", "duration", "touched", "content", "clips", "ids"]
)
def test_whatever_changes_makes_another_store(tmp_path, audio, reads, change):
    folder = tmp_path / "feats"
    old = feature_store(folder, audio, front_end(), 1.0)
    made, duration, clips = front_end(), 1.0, dict(audio)
    path = audio["clip-a"]
    if change == "front end":
        made = front_end(offset=1e-5)
    elif change == "duration":
        duration = 0.25
    elif change == "touched":
        os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1))
    elif change == "content":
        stamp = os.stat(path).st_mtime_ns
        soundfile.write(path, np.zeros(3000), RATE)
        os.utime(path, ns=(0, stamp))
    elif change == "clips":
        del clips["clip-b"]
    else:
        clips["other"] = clips.pop("clip-b")
    new = feature_store(folder, clips, made, duration)
    assert new.folder != old.folder and len(stores(folder)) == 2
    assert len(reads) == 3 + len(clips)
    assert len(old) == 3  # the old one is left alone


def test_interrupted_build_leaves_nothing(tmp_path, audio, monkeypatch):
    folder = tmp_path / "feats"
    calls = []

    def breaks(path, *args):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read_clip(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_clip", breaks)
        with pytest.raises(KeyboardInterrupt):
            feature_store(folder, audio, front_end(), 1.0)
    assert stores(folder) == []
    assert len(feature_store(folder, audio, front_end(), 1.0)) == 3


def test_killed_build_is_not_taken_for_a_store(tmp_path, audio, monkeypatch):
    """No clean-up runs in a killed process."""
    folder = tmp_path / "feats"
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", lambda *a, **k: None)
        patch.setattr(module.os, "replace", broken_replace)
        with pytest.raises(OSError, match="killed"):
            feature_store(folder, audio, front_end(), 1.0)
    assert all(name.endswith(".part") for name in stores(folder))
    store = feature_store(folder, audio, front_end(), 1.0)
    assert store.folder.name in stores(folder) and len(store) == 3


def broken_replace(source, target):
    """A process that dies before its store is in place."""
    raise OSError("killed")


def test_another_process_may_finish_first(tmp_path, audio, monkeypatch):
    folder, fill = tmp_path / "feats", module._fill

    def overtaken(*args):
        fill(*args)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_fill", fill)
            feature_store(folder, audio, front_end(), 1.0)

    monkeypatch.setattr(module, "_fill", overtaken)
    store = feature_store(folder, audio, front_end(), 1.0)
    assert stores(folder) == [store.folder.name] and len(store) == 3


def test_unreadable_clip_is_named_and_leaves_no_store(tmp_path, audio):
    folder = tmp_path / "feats"
    with open(audio["clip-a"], "wb") as stream:
        stream.write(b"broken")
    with pytest.raises(ValueError, match=r"a\.wav cannot be read as audio"):
        feature_store(folder, audio, front_end(), 1.0)
    assert stores(folder) == []
    os.remove(audio["clip-a"])
    with pytest.raises(FileNotFoundError, match=r"a\.wav"):
        feature_store(folder, audio, front_end(), 1.0)


def test_unknown_clip(tmp_path, audio):
    store = feature_store(tmp_path / "feats", audio, front_end(), 1.0)
    with pytest.raises(KeyError, match="'clip_a'.*Did you mean 'clip-"):
        store["clip_a"]


def test_no_clips_make_an_empty_store(tmp_path):
    store = feature_store(tmp_path / "feats", {}, front_end(), 1.0)
    assert len(store) == 0
    with pytest.raises(KeyError, match=r"Known: \(none\)"):
        store["clip"]


@pytest.mark.parametrize(
    "damage", ["cut", "shorter", "no array", "no index", "bad index", "header"]
)
def test_damaged_store_is_refused(tmp_path, audio, damage):
    folder = feature_store(tmp_path / "feats", audio, front_end(), 1.0).folder
    feats, index = folder / "feats.npy", folder / "index.json"
    if damage == "cut":
        feats.write_bytes(feats.read_bytes()[:-100])
    elif damage == "shorter":
        np.save(feats, np.load(feats)[:-1])
    elif damage == "no array":
        feats.unlink()
    elif damage == "no index":
        index.unlink()
    elif damage == "bad index":
        index.write_text(index.read_text()[:20])
    else:
        index.write_text(json.dumps({"clips": []}))
    with pytest.raises(ValueError, match=r"is damaged: .*Delete the folder"):
        FeatureStore(folder)


def test_store_that_lost_its_index_is_made_again_or_refused(tmp_path, audio):
    folder = feature_store(tmp_path / "feats", audio, front_end(), 1.0).folder
    (folder / "index.json").unlink()
    with pytest.raises(ValueError, match="Delete the folder"):
        feature_store(tmp_path / "feats", audio, front_end(), 1.0)
    assert stores(folder.parent) == [folder.name]


def test_array_is_plain_numpy(tmp_path, audio):
    folder = feature_store(tmp_path / "feats", audio, front_end(), 1.0).folder
    array = np.load(folder / "feats.npy")
    assert array.dtype == np.float32 and array.shape == (136, 12)
    assert sorted(p.name for p in folder.iterdir()) == [
        "feats.npy",
        "index.json",
    ]
