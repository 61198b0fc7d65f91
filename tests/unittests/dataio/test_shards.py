"""Shards: exact, resumable, shared, and never torn, stale or foreign.

Authors
 * The iusp_plugin authors 2026
"""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.utils.data import DataLoader, Dataset

from iusp_plugin.dataio import shards as module
from iusp_plugin.dataio.shards import ShardStore, ShardWriter

CLIPS = [f"clip-{number}.wav" for number in range(7)]
IDENTITY = {"teacher": "a1", "front_end": {"n_mels": 64}, "stride": 8}


def record(number):
    """Arrays of several kinds, of a length of their own."""
    generator = np.random.default_rng(number)
    return {
        "half": generator.normal(size=number).astype(np.float16),
        "maps": generator.normal(size=(number + 1, 3, 2)).astype(np.float32),
        "counts": np.arange(number, dtype=np.int64),
    }


def write(writer, numbers):
    """Write some shards."""
    for number in numbers:
        clips = writer.of(number)
        writer.write(number, [record(CLIPS.index(c)) for c in clips])


@pytest.fixture
def folder(tmp_path):
    """A finished store of seven clips in three shards."""
    writer = ShardWriter(tmp_path / "store", IDENTITY, CLIPS, shard_clips=3)
    write(writer, writer.missing())
    writer.finish()
    return writer.folder


def writer_of(folder, identity=IDENTITY, clips=CLIPS, shard_clips=3):
    """Another writer of the same folder."""
    return ShardWriter(folder, identity, clips, shard_clips)


def equal(one, other):
    """Whether two records are the same, dtypes included."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and np.array_equal(one[name], other[name])
        for name in one
    )


def test_what_is_read_is_what_was_written(folder):
    store = ShardStore(folder)
    assert list(store) == CLIPS and len(store) == 7
    assert CLIPS[0] in store and "other" not in store
    for number in (6, 0, 3, 1, 2, 5, 4):
        assert equal(store[CLIPS[number]], record(number))
    assert store.identity == IDENTITY


def test_a_record_is_a_copy(folder):
    store = ShardStore(folder)
    store[CLIPS[4]]["maps"][:] = 0
    assert equal(store[CLIPS[4]], record(4))


def test_files_and_their_permissions(tmp_path, folder):
    assert sorted(os.listdir(folder)) == [
        "identity.json",
        "index.json",
        *(f"shard-0000{number}.safetensors" for number in range(3)),
    ]
    plain = tmp_path / "plain"
    plain.touch()
    for path in folder.iterdir():
        assert path.stat().st_mode == plain.stat().st_mode


def test_work_goes_on_where_it_stopped(tmp_path):
    writer = writer_of(tmp_path)
    assert writer.missing() == [0, 1, 2] and not writer.finished()
    write(writer, [1])
    again = writer_of(tmp_path)
    assert again.missing() == [0, 2]
    with pytest.raises(RuntimeError, match="shard-00000.* has not been"):
        again.finish()
    with pytest.raises(ValueError, match="not finished; start again"):
        ShardStore(tmp_path)
    write(again, again.missing())
    again.finish()
    assert again.missing() == [] and again.finished()
    assert len(ShardStore(tmp_path)) == 7


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    writer = writer_of(tmp_path)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(writer, [0])
    assert os.listdir(tmp_path) == ["identity.json"]


def test_processes_share_the_shards(tmp_path):
    shares = [writer_of(tmp_path).missing(rank, 2) for rank in (0, 1)]
    assert shares == [[0, 2], [1]]


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "garbage"])
def test_a_torn_shard_is_found(folder, damage):
    """By the writer, which makes it again, and by the reader at last."""
    path = folder / "shard-00001.safetensors"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-8])
        told = "shard-00001.safetensors has .* bytes instead of"
    elif damage == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 16]))
        told = "shard-00001.safetensors: its checksum does not fit"
    elif damage == "foreign":
        save_file({"half": np.ones(3)}, path)
        told = "shard-00001.safetensors"
    else:
        path.write_bytes(bytes(len(content)))
        told = "shard-00001.safetensors"
    assert writer_of(folder).missing() == [1]
    with pytest.raises(ValueError, match=f"is damaged: {told}") as error:
        ShardStore(folder)[CLIPS[3]]
    assert "Delete its index.json and start again" in str(error.value)
    writer = writer_of(folder)
    write(writer, writer.missing())
    writer.finish()
    assert equal(ShardStore(folder)[CLIPS[3]], record(3))


def test_whole_shards_beside_a_torn_one_are_read(folder):
    """The checksum of a shard is looked at when it is needed."""
    path = folder / "shard-00001.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 16]))
    assert equal(ShardStore(folder)[CLIPS[0]], record(0))


def test_other_clips_in_a_shard_are_not_kept(folder):
    changed = [*CLIPS[:3], "other.wav", *CLIPS[4:]]
    assert writer_of(folder, clips=changed).missing() == [1]
    assert writer_of(folder, shard_clips=2).missing() == [0, 1, 2, 3]


def test_a_missing_shard(folder):
    (folder / "shard-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="damaged: .*shard-00002"):
        ShardStore(folder)


def test_another_identity_is_refused_and_named(folder):
    other = {**IDENTITY, "teacher": "b2", "front_end": {"n_mels": 40}}
    del other["stride"]
    with pytest.raises(ValueError, match="made from something else") as error:
        writer_of(folder, identity=other)
    assert str(error.value).splitlines()[1:] == [
        "  front_end: {'n_mels': 64} there, {'n_mels': 40} now",
        "  stride: 8 there, '(absent)' now",
        "  teacher: 'a1' there, 'b2' now",
    ]
    module.check_identity(folder, IDENTITY)
    (folder / "identity.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged: .*Delete the folder"):
        module.check_identity(folder, IDENTITY)


def test_tuples_and_lists_are_one_identity(tmp_path):
    """JSON knows lists alone."""
    writer_of(tmp_path, identity={"taps": ("a", "b")})
    writer_of(tmp_path, identity={"taps": ["a", "b"]})


def test_an_unknown_clip(folder):
    with pytest.raises(KeyError, match="Did you mean 'clip-6.wav'"):
        ShardStore(folder)["clip-66.wav"]


def test_no_clips(tmp_path):
    writer = ShardWriter(tmp_path, IDENTITY, [])
    assert writer.missing() == []
    writer.finish()
    assert len(ShardStore(tmp_path)) == 0


class Records(Dataset):
    """Sums of the records, as a loader's workers read them."""

    def __init__(self, store):
        self.store = store

    def __len__(self):
        return len(self.store)

    def __getitem__(self, number):
        arrays = self.store[CLIPS[number]]
        return torch.tensor(float(arrays["maps"].sum()))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_for_themselves(folder, context):
    store = ShardStore(folder)
    assert equal(store[CLIPS[1]], record(1))  # one shard is open already
    loader = DataLoader(
        Records(store),
        batch_size=7,
        num_workers=2,
        multiprocessing_context=context,
    )
    (sums,) = loader
    expected = [float(record(number)["maps"].sum()) for number in range(7)]
    assert sums.tolist() == pytest.approx(expected)


def test_pickled_it_opens_its_shards_anew(folder):
    store = ShardStore(folder)
    assert store[CLIPS[0]]
    again = pickle.loads(pickle.dumps(store))
    assert equal(again[CLIPS[0]], record(0))
    assert json.dumps(again.identity) == json.dumps(IDENTITY)
