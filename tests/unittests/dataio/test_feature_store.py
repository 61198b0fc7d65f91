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


def test_interrupted_work_is_kept(tmp_path, audio, monkeypatch):
    """Whole shards are; nothing is taken for a finished store."""
    folder = tmp_path / "feats"
    monkeypatch.setattr(module, "SHARD_CLIPS", 1)
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
    (name,) = stores(folder)
    with pytest.raises(ValueError, match="not finished; start again"):
        FeatureStore(folder / name)
    with monkeypatch.context() as patch:
        calls.append(None)  # no further interruption
        patch.setattr(module, "read_clip", breaks)
        store = feature_store(folder, audio, front_end(), 1.0)
    assert len(store) == 3 and stores(folder) == [name]
    # The first clip was not read again.
    assert calls.count(audio["clip-b"]) == 1 and len(calls) == 5


def test_two_processes_make_one_store(tmp_path, audio, monkeypatch, reads):
    """Each its share, in whatever order; together what one makes."""
    monkeypatch.setattr(module, "SHARD_CLIPS", 1)
    one = feature_store(tmp_path / "one", audio, front_end(), 1.0)
    arguments = (lambda: audio, "source", front_end(), 1.0)
    makers = [
        module.FeatureStoreMaker(tmp_path / "two", *arguments) for _ in range(2)
    ]
    assert not makers[0].finished()
    reads.clear()
    makers[1].fill(rank=1, world_size=2)
    assert reads == [audio["clip-a"]]
    with pytest.raises(RuntimeError, match="has not been written yet"):
        makers[1].finish()
    makers[0].fill(rank=0, world_size=2)
    assert sorted(reads) == sorted(audio.values())
    makers[0].finish()
    assert makers[1].finished()
    two = FeatureStore(makers[1].folder)
    assert all(torch.equal(one[clip], two[clip]) for clip in audio)


def test_where_a_store_is_no_audio_is_asked_for(tmp_path, audio):
    """The names of 200 000 files are not gathered for nothing."""
    maker = module.FeatureStoreMaker(
        tmp_path, lambda: audio, "source", front_end(), 1.0
    )
    maker.fill()
    maker.finish()
    again = module.FeatureStoreMaker(
        tmp_path, lambda: pytest.fail("asked"), "source", front_end(), 1.0
    )
    assert again.finished() and len(FeatureStore(again.folder)) == 3
    other = module.FeatureStoreMaker(
        tmp_path, lambda: audio, "other source", front_end(), 1.0
    )
    assert not other.finished()


def test_statistics_are_those_of_the_front_end(tmp_path, audio):
    """To the last digit, computed or read from the file beside the store."""
    store = feature_store(tmp_path / "feats", audio, front_end(), 1.0)
    expected, computed, read = front_end(), front_end(), front_end()
    expected.fit_statistics(store[clip] for clip in audio)
    computed.set_statistics(*store.statistics())
    assert (store.folder / "statistics.json").is_file()
    read.set_statistics(*FeatureStore(store.folder).statistics())
    for made in (computed, read):
        assert torch.equal(made.mean, expected.mean)
        assert torch.equal(made.std, expected.std)
    assert expected.mean.abs().min() > 0


def test_unreadable_clip_is_named_and_leaves_no_store(tmp_path, audio):
    folder = tmp_path / "feats"
    with open(audio["clip-a"], "wb") as stream:
        stream.write(b"broken")
    with pytest.raises(ValueError, match=r"a\.wav cannot be read as audio"):
        feature_store(folder, audio, front_end(), 1.0)
    (name,) = stores(folder)
    assert stores(folder / name) == ["identity.json"]
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


@pytest.mark.parametrize("damage", ["cut", "no shard", "bad index", "keys"])
def test_damaged_store_is_refused(tmp_path, audio, damage):
    folder = feature_store(tmp_path / "feats", audio, front_end(), 1.0).folder
    shard, index = folder / "shard-00000.safetensors", folder / "index.json"
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-100])
    elif damage == "no shard":
        shard.unlink()
    elif damage == "bad index":
        index.write_text(index.read_text()[:20])
    else:
        index.write_text(json.dumps({"clips": []}))
    with pytest.raises(ValueError, match="is damaged: .*start again"):
        FeatureStore(folder)


def test_store_that_lost_its_index_gets_another(tmp_path, audio, reads):
    folder = feature_store(tmp_path / "feats", audio, front_end(), 1.0).folder
    (folder / "index.json").unlink()
    reads.clear()
    assert len(feature_store(tmp_path / "feats", audio, front_end(), 1.0)) == 3
    assert not reads and stores(folder.parent) == [folder.name]


def test_files_of_a_store(tmp_path, audio):
    folder = feature_store(tmp_path / "feats", audio, front_end(), 1.0).folder
    assert stores(folder) == [
        "identity.json",
        "index.json",
        "shard-00000.safetensors",
    ]
