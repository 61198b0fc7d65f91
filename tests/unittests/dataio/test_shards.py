"""Shards: exact, resumable, shareable, and never trusted when torn.

Authors
 * The iusp_plugin authors 2026
"""

import json
import os
import pickle
import stat

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from iusp_plugin.dataio import shards as module
from iusp_plugin.dataio.shards import (
    IDENTITY,
    INDEX,
    ShardStore,
    ShardWriter,
    check_identity,
)

IDS = {"made from": "noise", "version": 1}
CLIPS = [f"clip {i}" for i in range(7)]  # shards of 3, 3 and 1


def record(clip):
    """Four fields; of clip 2 all that can be empty is."""
    n = CLIPS.index(clip)
    rng = np.random.default_rng(n)
    count = 0 if n == 2 else n + 1
    return {
        "half": rng.normal(size=(count, 2)).astype(np.float16),
        "single": rng.normal(size=(4, 3, 2)).astype(np.float32),
        "whole": np.arange(count % 3) + 2**40,
        "none": np.zeros((0, 5), np.float32),
    }


def writer_of(folder, clips=CLIPS, identity=IDS, shard_clips=3):
    """A writer of small shards."""
    return ShardWriter(folder, identity, clips, shard_clips)


def fill(writer, rank=0, world_size=1):
    """Write what is missing; returns the shards."""
    missing = writer.missing(rank, world_size)
    for number in missing:
        writer.write(number, [record(clip) for clip in writer.of(number)])
    return missing


@pytest.fixture
def folder(tmp_path):
    """A finished store."""
    writer = writer_of(tmp_path / "store")
    fill(writer)
    writer.finish()
    return tmp_path / "store"


def shard(folder, number):
    """File of one shard."""
    return folder / f"shard-{number:05d}.safetensors"


def names(folder):
    """Everything that lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def check_record(got, clip):
    """Bitwise the record that was written."""
    wanted = record(clip)
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        assert np.array_equal(got[name], array), name


# Reading


def test_round_trip(folder):
    store = ShardStore(str(folder))
    assert list(store) == CLIPS and len(store) == 7
    assert store.identity == IDS
    for clip in [*reversed(CLIPS), "clip 4"]:
        check_record(store[clip], clip)
    assert names(folder) == [
        IDENTITY,
        INDEX,
        *(shard(folder, number).name for number in range(3)),
    ]


@pytest.mark.parametrize("place", range(3))
def test_an_empty_array_may_stand_anywhere(tmp_path, place):
    """Also at the very end of its shard."""
    arrays = [np.ones((2, 3), np.float16) * i for i in range(3)]
    arrays[place] = arrays[place][:0]
    writer = writer_of(tmp_path, ["a", "b", "c"])
    writer.write(0, [{"x": array} for array in arrays])
    writer.finish()
    store = ShardStore(tmp_path)
    for clip, array in zip("abc", arrays, strict=True):
        assert store[clip]["x"].dtype == np.float16
        assert store[clip]["x"].shape == array.shape
        assert np.array_equal(store[clip]["x"], array)


def test_what_is_read_is_a_copy(folder):
    store = ShardStore(folder)
    for clip in ("clip 1", "clip 2"):
        for array in store[clip].values():
            array[...] = 1  # writable, and nobody else's
        check_record(store[clip], clip)


def test_opening_reads_no_shard(folder, monkeypatch):
    opened = []
    plain = module._Shard

    def counting(path):
        opened.append(path.name)
        return plain(path)

    monkeypatch.setattr(module, "_Shard", counting)
    store = ShardStore(folder)
    assert opened == [] and "clip 5" in store and "other" not in store
    assert opened == []
    for _ in range(2):
        store["clip 5"], store["clip 4"]
    assert opened == [shard(folder, 1).name]


def test_unknown_clip_names_near_ids(folder):
    store = ShardStore(folder)
    with pytest.raises(KeyError, match=r"'clip_3' is not in .*mean 'clip 3'"):
        store["clip_3"]
    assert store.get("clip_3") is None


def test_no_clips(tmp_path):
    writer = writer_of(tmp_path, [])
    assert writer.missing() == [] and not writer.finished()
    writer.finish()
    store = ShardStore(tmp_path)
    assert writer.finished() and len(store) == 0 and list(store) == []
    with pytest.raises(KeyError, match=r"Known: \(none\)"):
        store["clip"]
    assert names(tmp_path) == [IDENTITY, INDEX]


class Rows(Dataset):
    """Records in the order of the clips."""

    def __init__(self, store):
        self.store = store

    def __len__(self):
        return len(CLIPS)

    def __getitem__(self, row):
        return os.getpid(), self.store[CLIPS[row]]


def test_pickled_store_opens_the_shards_itself(folder):
    store = ShardStore(folder)
    fresh = pickle.dumps(store)
    store["clip 0"]
    assert pickle.dumps(store) == fresh  # nothing mapped travels
    again = pickle.loads(fresh)
    for clip in CLIPS:
        check_record(again[clip], clip)


# A worker forked from a process with threads warns of it.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("read_before", [False, True])
def test_workers_of_a_loader_read_it(folder, read_before):
    store = ShardStore(folder)
    if read_before:
        store["clip 0"], store["clip 6"]
    loader = DataLoader(
        Rows(store), batch_size=None, num_workers=2, shuffle=False
    )
    processes = set()
    for clip, (process, got) in zip(CLIPS, loader, strict=True):
        processes.add(process)
        check_record({name: x.numpy() for name, x in got.items()}, clip)
    assert len(processes) == 2 and os.getpid() not in processes


# Writing


def test_goes_on_where_it_stopped(tmp_path):
    first = writer_of(tmp_path)
    assert first.missing() == [0, 1, 2]
    assert [len(first.of(number)) for number in range(3)] == [3, 3, 1]
    first.write(1, [record(clip) for clip in first.of(1)])
    kept = shard(tmp_path, 1).stat()
    second = writer_of(tmp_path)
    assert fill(second) == [0, 2] and second.missing() == []
    second.finish()
    after = shard(tmp_path, 1).stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    check_record(ShardStore(tmp_path)["clip 4"], "clip 4")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    writer = writer_of(tmp_path)
    write_bytes = module.Path.write_bytes

    def interrupted(path, content):
        write_bytes(path, content[:100])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module.Path, "write_bytes", interrupted)
        with pytest.raises(error):
            fill(writer)
    assert names(tmp_path) == [IDENTITY]
    assert fill(writer_of(tmp_path)) == [0, 1, 2]


def test_interrupted_finish_leaves_an_unfinished_store(tmp_path, monkeypatch):
    writer = writer_of(tmp_path)
    fill(writer)

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("iusp_plugin.files.os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.finish()
    assert not writer.finished() and len(names(tmp_path)) == 4
    with pytest.raises(ValueError, match="not finished; start again"):
        ShardStore(tmp_path)


def test_unfinished_store_is_refused(tmp_path):
    fill(writer_of(tmp_path))
    with pytest.raises(ValueError, match="goes on where it stopped"):
        ShardStore(tmp_path)
    with pytest.raises(ValueError, match="not finished"):
        ShardStore(tmp_path / "none")


def test_finish_needs_every_shard(tmp_path):
    writer = writer_of(tmp_path)
    fill(writer)
    shard(tmp_path, 1).unlink()
    with pytest.raises(RuntimeError, match=r"shard-00001\S+ has not been"):
        writer.finish()
    assert not writer.finished()


def test_processes_share_the_shards_and_never_one(tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    writer = writer_of(alone, shard_clips=1)
    fill(writer)
    writer.finish()
    writers = [writer_of(shared, shard_clips=1) for _ in range(3)]
    shares = [w.missing(rank, 3) for rank, w in enumerate(writers)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    for rank in (2, 0, 1):
        assert fill(writers[rank], rank, 3) == shares[rank]
        assert writers[rank].missing(rank, 3) == []
    writers[0].finish()
    assert names(shared) == names(alone)
    assert (shared / INDEX).read_bytes() == (alone / INDEX).read_bytes()
    one, other = ShardStore(alone), ShardStore(shared)
    for clip in CLIPS:
        check_record(one[clip], clip)
        check_record(other[clip], clip)


@pytest.mark.parametrize("mask, mode", [(0o027, 0o640), (0o002, 0o664)])
def test_files_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        writer = writer_of(tmp_path / "store")
        fill(writer)
        writer.finish()
    finally:
        os.umask(before)
    for path in (tmp_path / "store").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == mode, path.name


# Damage


def cut(path):
    """Half of it is lost."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    """One bit of the last array."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_clips(path):
    """Whole, of the same size, in the wrong place."""
    path.write_bytes(shard(path.parent, 1).read_bytes())


def emptied(path):
    """As a full disk leaves it."""
    path.write_bytes(b"")


def removed(path):
    """Gone."""
    path.unlink()


def foreign(path):
    """A safetensors file that nobody here wrote."""
    path.write_bytes(module.save({"x": np.ones(2)}))


DAMAGES = [cut, flipped, other_clips, emptied, removed, foreign]


@pytest.mark.parametrize("damage", DAMAGES)
def test_torn_shard_is_made_again(folder, damage):
    damage(shard(folder, 0))
    writer = writer_of(folder)
    assert writer.missing() == [0]
    assert writer.missing(0, 2) == [0] and writer.missing(1, 2) == []
    (folder / INDEX).unlink()
    assert fill(writer) == [0]
    writer.finish()
    store = ShardStore(folder)
    for clip in CLIPS:
        check_record(store[clip], clip)


@pytest.mark.parametrize("damage", [cut, emptied, removed, foreign])
def test_shard_of_another_size_is_refused_at_opening(folder, damage):
    damage(shard(folder, 0))
    match = rf"{folder} is damaged: .*shard-00000\.safetensors.*Delete its inde"
    with pytest.raises(ValueError, match=match):
        ShardStore(folder)


@pytest.mark.parametrize(
    "damage, reason", [(flipped, "its checksum"), (other_clips, "other clips")]
)
def test_shard_of_the_same_size_is_refused_at_reading(folder, damage, reason):
    path = shard(folder, 0)
    if damage is other_clips:
        # Shards 0 and 1 of as many bytes each.
        for number in (0, 1):
            clips = writer_of(folder).of(number)
            rows = [{"x": np.full(1, float(number))} for _ in clips]
            writer_of(folder).write(number, rows)
        writer_of(folder).finish()
    damage(path)
    store = ShardStore(folder)
    check_record(store["clip 6"], "clip 6")  # of another shard
    match = rf"is damaged: {path.name}: .*{reason}.*Delete its {INDEX}.*kept"
    for _ in range(2):
        with pytest.raises(ValueError, match=match):
            store["clip 0"]


def test_every_byte_of_a_shard_is_checked(tmp_path):
    """Data, ids, names, dtypes and shapes alike."""
    writer = writer_of(tmp_path, ["a", "b"])
    writer.write(0, [{"x": np.ones((2, 3), np.float16)}] * 2)
    path = shard(tmp_path, 0)
    whole = path.read_bytes()
    assert writer.missing() == []
    for place, byte in enumerate(whole):
        changed = bytes([byte ^ (1 << place % 3)])
        path.write_bytes(whole[:place] + changed + whole[place + 1 :])
        assert writer.missing() == [0], whole[max(place - 9, 0) : place + 9]


def test_shards_of_another_size_are_made_again(folder):
    other = writer_of(folder, shard_clips=2)
    assert other.missing() == [0, 1, 2, 3]
    fill(other)
    with pytest.raises(ValueError, match="is damaged"):  # the former index
        ShardStore(folder)
    other.finish()
    for clip in CLIPS:
        check_record(ShardStore(folder)[clip], clip)


def test_shards_of_other_clips_are_made_again(folder):
    renamed = [*CLIPS[:3], "x", *CLIPS[4:]]
    assert writer_of(folder, renamed).missing() == [1]
    assert writer_of(folder, CLIPS[::-1]).missing() == [0, 1, 2]


@pytest.mark.parametrize(
    "content", ["", '{"clips": ["a"]', "[]", "{}", '{"shard_clips": 1}']
)
def test_damaged_index_is_refused(folder, content):
    (folder / INDEX).write_text(content)
    with pytest.raises(ValueError, match=f"is damaged: .*Delete its {INDEX}"):
        ShardStore(folder)
    writer_of(folder).finish()
    assert len(ShardStore(folder)) == 7


# Identity


def test_foreign_identity_is_refused_by_name(folder):
    match = (
        r"was made from something else:\n"
        r"  made from: 'noise' there, 'speech' now\n"
        r"  more: '\(absent\)' there, \[1\] now\n"
        r"  version: 1 there, '\(absent\)' now$"
    )
    other = {"made from": "speech", "more": (1,)}
    with pytest.raises(ValueError, match=match):
        writer_of(folder, identity=other)
    with pytest.raises(ValueError, match=match):
        check_identity(folder, other)
    assert ShardStore(folder).identity == IDS  # untouched


def test_identity_is_compared_as_json(tmp_path):
    """A tuple is a list there."""
    identity = {"a": (1, 2), "b": {"c": 0.1}}
    writer = writer_of(tmp_path, identity=identity)
    assert writer.identity == {"a": [1, 2], "b": {"c": 0.1}}
    assert check_identity(tmp_path, identity) is None
    assert json.loads((tmp_path / IDENTITY).read_text()) == writer.identity


@pytest.mark.parametrize("content", [None, "", '{"a"'])
def test_damaged_identity_is_refused(folder, content):
    (folder / IDENTITY).unlink()
    if content is not None:
        (folder / IDENTITY).write_text(content)
        with pytest.raises(ValueError, match="is damaged: .*Delete the folder"):
            writer_of(folder)
    with pytest.raises(ValueError, match="is damaged: .*Delete the folder"):
        check_identity(folder, IDS)
