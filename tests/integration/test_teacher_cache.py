"""cache_teacher.py and training from what it stored.

Authors
 * The iusp_plugin authors 2026
"""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
import speechbrain

SCRIPTS = Path(__file__).parent / "scripts"
STILL = "--time_shift=False"
FP32 = ("--precision=fp32", "--teacher_precision=fp32")
ALL = ("--kd_weight=2.0", "--sp_weight=10.0", "--sp_pooling=mean")


@pytest.fixture(scope="module")
def cached(runs):
    """Folder of a cache made by the command, with every record."""
    runs.made("teacher")
    folder = runs.base / "teacher_cache"
    arguments = runs.arguments("iusp", "unused", *FP32, *ALL)
    result = runs.script(
        "cache_teacher.py", *arguments, f"--teacher_cache={folder}"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"conv_block4\.cosine: \d+\.\d kB a clip", result.stderr)
    return folder


@pytest.fixture
def cache(runs, scripts, train, monkeypatch):
    """Run cache_teacher.py in this process: cache(folder, *flags)."""
    runs.made("teacher")
    module = scripts("cache_teacher")

    def cache(folder, *more):
        arguments = runs.arguments(
            "iusp", "unused", f"--teacher_cache={folder}", *more
        )
        monkeypatch.setattr(sys, "argv", ["cache_teacher.py", *arguments])
        module.cache_teacher(*speechbrain.parse_arguments(arguments))

    cache.module = module
    return cache


def from_cache(folder, *more):
    """Flags of a training run that reads a cache."""
    return ("--use_teacher_cache=True", f"--teacher_cache={folder}", *more)


def losses_of(runs, folder):
    """Figures of the last training line."""
    line = (runs.base / folder / "train_log.txt").read_text().splitlines()[-1]
    return {
        k: float(v) for k, v in re.findall(r"train (\w+): ([-+.e\d]+)", line)
    }


def test_cached_equals_live(runs, train, cached):
    """Without a shift the cache says what the live teacher says."""
    flags = (*FP32, *ALL, STILL, "--method=all")
    train("iusp", "live_all", *flags)
    train("iusp", "cached_all", *flags, *from_cache(cached))
    live, kept = (losses_of(runs, f) for f in ("live_all", "cached_all"))
    assert live.keys() == kept.keys() >= {"kd", "sp", "iusp"}
    # Float16 cosines change the first step's losses by 1e-3 at most; after
    # three steps of AdamW a little more.
    for name in ("loss", "label", "kd", "sp", "iusp"):
        assert kept[name] == pytest.approx(live[name], rel=1e-2), name


def test_a_shift_is_followed(runs, train, cached):
    """Cached frames turn with the clip: nearly what a live teacher says."""
    flags = (*FP32, "--method=shifted")
    train("iusp", "live_shift", *flags)
    train("iusp", "cached_shift", *flags, *from_cache(cached))
    live, kept = (losses_of(runs, f) for f in ("live_shift", "cached_shift"))
    assert kept["label"] == pytest.approx(live["label"], rel=0.02)
    assert kept["iusp"] == pytest.approx(live["iusp"], rel=0.1)


def test_features_on_the_fly(runs, train, cached, tmp_path):
    """Stored or computed, the same features give the same run."""
    flags = (*FP32, STILL, *from_cache(cached))
    train("iusp", "from_store", *flags)
    train("iusp", "from_audio", *flags, "--feature_store=False")
    store, audio = (losses_of(runs, f) for f in ("from_store", "from_audio"))
    assert audio["iusp"] == pytest.approx(store["iusp"], rel=1e-3)


def test_records_are_added(runs, cache, tmp_path):
    """A second call with other losses adds what they need, no more."""
    cache(tmp_path / "c")
    assert os.listdir(tmp_path / "c") == ["conv_block4.cosine"]
    before = (tmp_path / "c/conv_block4.cosine/index.json").stat().st_mtime_ns
    shard = tmp_path / "c/conv_block4.cosine/shard-00000.safetensors"
    written = shard.stat().st_mtime_ns
    cache(tmp_path / "c", "--kd_weight=1.0")
    assert sorted(os.listdir(tmp_path / "c")) == [
        "conv_block4.cosine",
        "logits",
    ]
    assert shard.stat().st_mtime_ns == written
    assert before  # the index may be written again, the records are not


def test_interrupted_it_goes_on(runs, cache, monkeypatch, tmp_path):
    """Shards that are there are kept; a torn one is made again."""
    writer = cache.module.part_writer.__globals__
    small = functools.partial(writer["ShardWriter"], shard_clips=8)
    monkeypatch.setitem(writer, "ShardWriter", small)
    listener, heard = cache.module.Listener, []
    hear = listener.hear

    def counting(self, items):
        heard.append(len(items))
        if stop and len(heard) == 3:  # one silent clip is tried first
            raise KeyboardInterrupt
        return hear(self, items)

    monkeypatch.setattr(listener, "hear", counting)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path / "c")
    folder = tmp_path / "c/conv_block4.cosine"
    assert sorted(os.listdir(folder)) == [
        "identity.json",
        "shard-00000.safetensors",
    ]
    stop = False
    heard.clear()
    cache(tmp_path / "c")
    assert heard == [1, 8, 8]
    shard = folder / "shard-00001.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    heard.clear()
    cache(tmp_path / "c")
    assert heard == [1, 8]
    heard.clear()
    cache(tmp_path / "c")
    assert heard == [1]  # all are whole


def test_killed_it_goes_on(runs, tmp_path):
    """A killed process leaves whole shards, and no index."""
    runs.made("teacher")
    folder = tmp_path / "c" / "conv_block4.cosine"
    arguments = runs.arguments(
        "iusp", "unused", f"--teacher_cache={tmp_path}/c"
    )
    command = [sys.executable, str(SCRIPTS / "small_shards.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=runs.base, env=environment, stderr=subprocess.DEVNULL
    )
    first = folder / "shard-00000.safetensors"
    while not first.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "index.json").exists()
    stamp = first.stat().st_mtime_ns
    result = subprocess.run(
        command, cwd=runs.base, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert first.stat().st_mtime_ns == stamp
    index = json.loads((folder / "index.json").read_text())
    assert len(index["clips"]) == 24 and len(index["bytes"]) == 12


def test_two_processes_share_the_work(runs, cached, tmp_path):
    """torchrun with two processes stores the same bytes."""
    arguments = runs.arguments(
        *("iusp", "unused", *FP32, *ALL, f"--teacher_cache={tmp_path}/c")
    )
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc_per_node=2", str(SCRIPTS / "small_shards.py")),
        *(*arguments, "--distributed_backend=gloo"),
    ]
    result = subprocess.run(
        command,
        cwd=runs.base,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    from iusp_plugin.dataio.shards import ShardStore

    for name in ("logits", "conv_block4.cosine", "conv_block2.mean"):
        one, two = ShardStore(cached / name), ShardStore(tmp_path / "c" / name)
        assert list(one) == list(two)
        for clip in one:
            for field, array in one[clip].items():
                assert two[clip][field] == pytest.approx(array, abs=2e-3)


def test_no_cache(runs, train):
    """The message is the command that makes it."""
    runs.made("teacher")
    with pytest.raises(FileNotFoundError, match="No teacher cache at") as error:
        train("iusp", "uncached", *from_cache("nowhere"))
    assert "python cache_teacher.py " in str(error.value)
    assert "hparams/iusp.yaml --" in str(error.value)
    assert not (runs.base / "uncached" / "run.json").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--teacher_precision=bf16",), r"precision: 'fp32' there, 'bf16' now"),
        (("--clip_duration_s=5.0",), r"clip_duration_s: 10.0 there, 5.0 now"),
        (("--iusp_teacher_tap=conv_block3",), r"No teacher cache at .*block3"),
        (("--mix_probability=0.5",), r"mix_probability=0.5 changes what"),
        (("--colour_db=3.0",), r"colour_db=3 changes what"),
        (("--shift_multiple=4",), r"shift_multiple=4 is not a multiple of 8"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_refused_before_training(runs, train, cached, flags, told):
    """What does not fit is named, and nothing is claimed."""
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        train("iusp", "refused", *FP32, *from_cache(cached), *flags)
    assert not (runs.base / "refused" / "run.json").exists()


def test_another_teacher(runs, train, cached):
    """A cache belongs to the weights that made it."""
    train("teacher", "teacher_3", "--seed=3")
    with pytest.raises(ValueError, match="teacher: '[0-9a-f]{64}' there"):
        train(
            *("iusp", "foreign", *FP32, *from_cache(cached)),
            f"--teacher_folder={runs.base / 'teacher_3'}",
        )


def test_a_copy_of_the_data(runs, train, cached, tmp_path):
    """Cache, stores and begun runs belong to the audio's bytes, not times."""
    data = runs.base / "DCASE2019_Task5_data"
    copy = shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copy)
    stores = runs.base / "DCASE2019_Task5_cache" / "feats"
    flags = (*FP32, *from_cache(cached))
    train("iusp", "of_the_data", *flags)
    before = sorted(os.listdir(stores))
    train("iusp", "of_the_data", *flags, f"--data_folder={copy}")
    assert sorted(os.listdir(stores)) == before
    clip = next((copy / "audio-dev" / "train").iterdir())
    samples, rate = soundfile.read(clip)
    soundfile.write(clip, samples / 2, rate)
    with pytest.raises(ValueError, match="clips: 'train, [0-9a-f]+' there"):
        train("iusp", "of_other_data", *flags, f"--data_folder={copy}")
    with pytest.raises(ValueError, match="data: "):
        train("iusp", "of_the_data", *FP32, f"--data_folder={copy}")


def test_a_clip_that_the_cache_lacks(runs, train, cached, monkeypatch):
    """It is named; it does not count as zero."""
    from iusp_plugin.teacher_cache import TeacherCache

    batch = TeacherCache.batch

    def of_another_clip(self, clips, *more):
        return batch(self, ["other.wav", *clips[1:]], *more)

    monkeypatch.setattr(TeacherCache, "batch", of_another_clip)
    with pytest.raises(KeyError, match="Clip 'other.wav' is not in"):
        train("iusp", "lacking", *FP32, *from_cache(cached))


def test_nothing_to_keep(cache, tmp_path):
    """Without an active loss there is nothing to cache."""
    with pytest.raises(ValueError, match="no active distillation term"):
        cache(tmp_path / "c", "--iusp_weight=0")


def test_too_large_for_the_disk(cache, tmp_path, monkeypatch):
    """Refused before the teacher is run over the clips."""
    usage = cache.module.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(cache.module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="GB free; choose another"):
        cache(tmp_path / "c")
