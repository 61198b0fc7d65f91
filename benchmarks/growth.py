"""Table D: what a manifest of many clips adds to the start-up.

Authors
 * The iusp_plugin authors 2026
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from report import at_most, table

from iusp_plugin.dataio.manifests import Manifest, write_manifests
from iusp_plugin.dataio.shards import ShardStore, ShardWriter

STORES = ("feats", "logits", "cosine")


def make(folder: Path, n_clips: int) -> None:
    """A manifest of synthetic ids, and stores of as many tiny records.

    Arguments
    ---------
    folder : Path
        For all of them.
    n_clips : int
        How many.
    """
    generator = np.random.default_rng(0)
    tags = generator.random((n_clips, 37)) < 0.1
    clips = {
        f"{i:06d}_street.wav": {
            "wav": f"{{data_root}}/audio-dev/train/{i:06d}_street.wav",
            "duration": 10.0,
            "sensor": str(i % 60),
            "audio_filename": f"{i:06d}_street.wav",
            "coarse": row[:8].astype(float).tolist(),
            "fine": row[8:].astype(float).tolist(),
        }
        for i, row in enumerate(tags)
    }
    write_manifests(folder, {"train": clips}, {})
    record = {"x": np.zeros(1, np.float16)}
    for name in STORES:
        writer = ShardWriter(folder / name, {}, list(clips))
        for number in writer.missing():
            writer.write(number, [record] * len(writer.of(number)))
        writer.finish()


def _resident() -> int:
    """Bytes of memory that this process holds."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def start_up(way: str, folder: Path) -> dict[str, float]:
    """Seconds and bytes of one way to begin, in this process.

    Arguments
    ---------
    way : str
        "host" or "ours".
    folder : Path
        What ``make`` made.

    Returns
    -------
    dict
        "seconds", "bytes".
    """
    from speechbrain.dataio.dataset import DynamicItemDataset

    manifest, root = folder / "train.json", {"data_root": "/data"}
    before, start = _resident(), time.perf_counter()
    if way == "host":
        kept = [DynamicItemDataset.from_json(str(manifest), root)]
    else:
        kept = [DynamicItemDataset(Manifest(manifest, root))]
        kept += [ShardStore(folder / name) for name in STORES]
    seconds = time.perf_counter() - start
    held = _resident() - before
    assert len(kept[0]) > 0  # still there
    return {"seconds": seconds, "bytes": held}


def growth(folder: Path, n_clips: int, repetitions: int) -> dict:
    """Both ways, each in fresh processes.

    Arguments
    ---------
    folder : Path
        For manifest and stores.
    n_clips : int
        How many.
    repetitions : int
        The median counts.

    Returns
    -------
    dict
        As ``report.table``.
    """
    make(folder, n_clips)
    rows = []
    names = {
        "host": "the host's from_json, no stores",
        "ours": "manifest read lazily, feature store, two records of a cache",
    }
    for way, name in names.items():
        command = [sys.executable, __file__, way, str(folder)]
        found = [
            json.loads(subprocess.check_output(command).splitlines()[-1])
            for _ in range(repetitions)
        ]
        seconds, held = (
            float(np.median([f[key] for f in found]))
            for key in ("seconds", "bytes")
        )
        row = {"name": name, "seconds": seconds, "held": held}
        if way == "ours":
            row["time bar"] = at_most({"value": seconds}, 1.0)
            row["memory bar"] = at_most({"value": held}, 150e6)
        rows.append(row)
    return table(
        f"D. Start-up with {n_clips} clips",
        "What is added to seconds and resident memory of a fresh process.",
        [
            ("way", "name", "text"),
            ("s", "seconds", "number"),
            ("bar", "time bar", "bar"),
            ("MB", "held", "MB"),
            ("bar, MB", "memory bar", "MB bar"),
        ],
        rows,
    )


if __name__ == "__main__":
    print(json.dumps(start_up(sys.argv[1], Path(sys.argv[2]))))
